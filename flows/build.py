"""The flow: plan, one task a DVC stage in the graph's order, then publish. DVC owns what is stale; Prefect when, where, retries."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture, wait
from prefect.states import Failed, State
from slm_registry.errors import RegistryError

from flows import artifacts, record
from flows.clusters import cluster_of
from flows.console import without_tracebacks
from flows.errors import FlowError, GraphError
from flows.graph import Plan, find_root, make_plan
from flows.publish import Publication, check_destination, publish_bundle
from flows.stage import stage_task
from pipelines.config import load_recipe
from pipelines.errors import FactoryError

#: Seconds between two looks at whether the worker that started this process still lives.
PARENT_TICK = 1.0


@dataclass(frozen=True)
class BuildResult:
    """What a finished build leaves: each stage's outcome, and where its metrics and its report lie."""

    model: str
    outcomes: dict[str, str]
    metrics: Path | None
    report: Path | None
    publication: Publication | None


@flow(name="build", flow_run_name="build · {model}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def build(
    model: str,
    publish: str | None = None,
    alias: str = "candidate",
    plan_only: bool = False,
    until: str | None = None,
    workers: str | None = None,
) -> BuildResult | State[Any]:
    """Build one model: run what DVC finds stale, then publish the finished bundle and move the alias to it.

    Args:
        model: Name of a recipe in params.yaml.
        publish: Registry to publish to, a folder or s3://BUCKET/PREFIX; empty: build only.
        alias: Alias that points at the published version afterwards.
        plan_only: Only show which stages are stale, and why.
        until: Last stage to run, such as `explore`; nothing is published then. Empty: all.
        workers: Who measures and recovers the parts of a model by budget: processes:N, dask:ADDRESS or ray:ADDRESS. Empty: the stage itself.
    """
    root = find_root(Path.cwd())
    try:
        with _ends_with_its_worker(), without_tracebacks(FlowError, RegistryError):
            return _build(root, model, publish, alias, plan_only, until, workers)
    except (FlowError, FactoryError, RegistryError) as error:
        # A returned state carries the message as it stands; a raised exception would put a traceback on the page.
        return Failed(message=f"{type(error).__name__}: {error}", data=error)


def _build(
    root: Path,
    model: str,
    publish: str | None,
    alias: str,
    plan_only: bool,
    until: str | None,
    workers: str | None,
) -> BuildResult:
    load_recipe(root / "params.yaml", model)  # an impossible recipe fails before any work
    if workers:
        cluster_of(workers)  # and so do workers that there are not
    if publish:
        check_destination(publish, model, alias)
    plan = make_plan(root, model)
    if until:
        plan = plan.up_to(until, model)
    _announce(plan, model)
    if plan_only:
        return BuildResult(model, {}, None, None, None)
    outcomes = run_stages(plan, root, workers)
    if until:
        return BuildResult(model, outcomes, None, None, None)
    metrics, report = plan.metrics_file(), plan.find("report.html")
    if metrics:
        artifacts.show_metrics(record.read_json(root / metrics), model)
    if report:
        artifacts.show_report(root / report, model)
    publication = None
    if publish:
        if metrics is None:
            raise GraphError("dvc.yaml: no stage of this model writes metrics; nothing is published unmeasured")
        publication = publish_bundle(model, publish, alias, root, plan.out("bundle"), metrics)
    return BuildResult(model, outcomes, metrics, report, publication)


def _announce(plan: Plan, model: str) -> None:
    logger = get_run_logger()
    logger.info("%s: %s", model, artifacts.summary(plan))
    for step in plan.stale:
        logger.info("  %s: %s", step.node.name, "; ".join(map(str, step.reasons)))
    artifacts.show_plan(plan, model)


def run_stages(plan: Plan, root: Path, workers: str | None = None) -> dict[str, str]:
    """Run one task a stage, as parallel as the graph allows; what became of each.

    Raises the StageError of the first stage, in the graph's order, that failed.
    """
    stop = threading.Event()
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        for step in plan.steps:
            above = [futures[name] for name in step.node.upstream]
            futures[step.node.name] = stage_task(step.node).submit(step, root, stop, workers, wait_for=above)
        wait(list(futures.values()))
    finally:  # Ctrl-C, cancellation, any error: the children end before the flow does
        stop.set()
        wait(list(futures.values()))
    states = {name: future.state for name, future in futures.items()}
    for state in states.values():
        error = state.result(raise_on_failure=False) if state.is_failed() else None
        if isinstance(error, Exception):
            raise error
    return {name: str(state.name) for name, state in states.items()}


@contextmanager
def _ends_with_its_worker() -> Iterator[None]:
    """Under a worker, end this process when the worker is gone: a SIGKILL of the worker reaches nobody else."""
    finished = threading.Event()

    def watch(worker: int) -> None:
        while not finished.wait(PARENT_TICK):
            if os.getppid() != worker:
                os.kill(os.getpid(), signal.SIGTERM)  # Prefect's handler unwinds the flow from here
                return

    if "PREFECT__FLOW_RUN_ID" in os.environ:  # set by workers alone
        threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    finally:
        finished.set()
