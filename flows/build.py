"""The flow: plan, one task a DVC stage in the graph's order, then publish. DVC owns what is stale; Prefect when, where, retries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled, Completed, Failed, State
from slm_registry.errors import RegistryError

from flows import artifacts, child, record
from flows.clusters import cluster_of
from flows.console import without_tracebacks
from flows.errors import Busy, FlowError, GateFailed, GraphError, StageError
from flows.graph import Plan, find_root, make_plan
from flows.history import check_history
from flows.ledger import Entry, noted
from flows.mending import mend
from flows.publication import Publication
from flows.publish import check_destination, commit_build, publish_bundle, push_outputs
from flows.receipt import record_of, write_receipt
from flows.remote import default_remote
from flows.stage import stage_task
from flows.standing import NOWHERE, UP_TO_DATE, BuildResult, Handing, lock_of_build, standing
from flows.transcript import Used
from flows.updating import imports_of, update_imports
from pipelines.alone import alone
from pipelines.config import load_recipe
from pipelines.errors import FactoryError, TransientError

#: The state of a build that another one of the same model kept from beginning.
SKIPPED = "Skipped"
#: Those of a build that published a new version, and of one whose model misses a bound. Alerts (flows/alerts.py) go by such names.
PUBLISHED, GATE_FAILED, COMPLETED = "Published", "Gate failed", "Completed"


@dataclass(frozen=True)
class Wanted:
    """How much of a build: only its plan, up to which stage, with which workers, from imports as they are today."""

    plan_only: bool
    until: str | None
    workers: str | None
    update: bool


@flow(name="build", flow_run_name="build · {model}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def build(
    model: str,
    publish: str | None = None,
    alias: str = "candidate",
    plan_only: bool = False,
    until: str | None = None,
    workers: str | None = None,
    commit: str | None = None,
    push: str | None = None,
    update: bool = False,
) -> BuildResult | State[Any]:
    """Build one model: run what DVC finds stale, then publish the finished bundle and move the alias to it.

    Args:
        model: Name of a recipe in params.yaml.
        publish: Registry to publish to, a folder or s3://BUCKET/PREFIX; empty: build only.
        alias: Alias that points at the published version afterwards.
        plan_only: Only show which stages are stale, and why.
        until: Last stage to run, such as `explore`; nothing is published then. Empty: all.
        commit: Branch that the build's record (dvc.lock) is committed to: HEAD for the one that is checked out. Empty: no commit.
        push: Git remote that this branch is pushed to, such as `origin`. Empty: none.
        update: First look for what changed at the origins of imported data (`dvc import-url`, `dvc import`).
        workers: Who labels, and measures and recovers the parts of a model by budget: processes:N, dask:ADDRESS or ray:ADDRESS. Empty: the stage itself.
    """
    root = find_root(Path.cwd())
    try:
        load_recipe(root / "params.yaml", model)  # an impossible recipe, or name, fails before any work
        with child.ends_with_its_worker(), without_tracebacks(FlowError, RegistryError), _alone(root, model, plan_only):
            wanted = Wanted(plan_only, until, workers, update)
            with noted(root, model, kept=not plan_only) as entry:
                found = _build(root, entry, Handing(publish, alias, commit, push), wanted)
                entry.state = found.name or COMPLETED if isinstance(found, State) else COMPLETED
            return found
    except Busy as busy:
        return Cancelled(name=SKIPPED, message=str(busy), data=busy)
    except (FlowError, FactoryError, RegistryError) as error:
        # A returned state carries the message as it stands; a raised exception would put a traceback on the page.
        name = GATE_FAILED if isinstance(error, GateFailed) else None
        return Failed(name=name, message=f"{type(error).__name__}: {error}", data=error)


def _build(root: Path, entry: Entry, to: Handing, wanted: Wanted) -> BuildResult | State[Any]:
    model = entry.model
    if wanted.workers:
        cluster_of(wanted.workers)  # workers that there are not fail before any work
    if to.publish:
        check_destination(to.publish, model, to.alias)
    head = check_history(root, to.commit, to.push) if to.commit or to.push else None
    plan = _look(root, model, wanted)
    _announce(plan, model)
    if wanted.plan_only:
        return BuildResult(model, {}, {}, None, None, None)
    if done := standing(root, model, NOWHERE if wanted.until else to, plan):
        return Completed(name=UP_TO_DATE, message=_what_stands(done), data=done)
    try:
        outcomes = run_stages(plan, root, entry.stages, wanted.workers)
    except GateFailed as error:
        _show_measured(root, plan.before(error.stage), model)  # when it is needed most; of this build alone
        raise
    if wanted.until:
        return BuildResult(model, outcomes, entry.stages, None, None, None)
    metrics, report = _show_measured(root, plan, model)
    publication = hand_over(root, model, to, plan, head)
    return _finished(root, entry, BuildResult(model, outcomes, entry.stages, metrics, report, publication))


def _show_measured(root: Path, plan: Plan, model: str) -> tuple[Path | None, Path | None]:
    """Metrics and report on the run's page; where they lie."""
    metrics, report = plan.metrics_file(), plan.find("report.html")
    if metrics:
        artifacts.show_metrics(record.read_json(root / metrics), model)
    if report:
        artifacts.show_report(root / report, model)
    return metrics, report


def _look(root: Path, model: str, wanted: Wanted) -> Plan:
    """What there is to do, once DVC's own files are whole and imported data as it was wanted."""
    if not wanted.plan_only:
        for mended in mend(root):
            get_run_logger(model=model).warning(mended)
    plan = make_plan(root, model)
    if wanted.update and not wanted.plan_only and (imports := imports_of(plan)):
        update_imports(model, root, imports)
        plan = make_plan(root, model)
    return plan.up_to(wanted.until, model) if wanted.until else plan


def _what_stands(done: BuildResult) -> str:
    found = done.publication
    return f"{done.model} {found.version} stands in {found.url}" if found else f"nothing of {done.model} is stale"


def _finished(root: Path, entry: Entry, result: BuildResult) -> BuildResult | State[Any]:
    """The end of a build that went through: its page, and where a version is new its own state."""
    done = result.publication
    artifacts.show_summary(result, record.read_json(root / result.metrics) if result.metrics else {})
    if done is None or not done.created:
        return result
    entry.version = done.version
    return Completed(
        name=PUBLISHED, message=f"{result.model} {done.version} in {done.url} as {done.alias}", data=result
    )


def hand_over(root: Path, model: str, to: Handing, plan: Plan, head: str | None) -> Publication | None:
    """What comes after the gate, in the order that can be cut off anywhere and be done again; what was published.

    `head` is the commit that the build began from, where its record is to be committed.

    Raises GraphError where no stage writes metrics, and what the steps of `flows.publish` raise.
    """
    if not to.publish and not to.commit:
        return None
    metrics, bundle = plan.metrics_file(), plan.out("bundle")
    if metrics is None:
        raise GraphError("dvc.yaml: no stage of this model writes metrics; nothing is published unmeasured")
    built = record_of(root, plan)  # now: whoever runs DVC beside this build changes dvc.lock
    if default_remote(root):
        push_outputs(model, root, [step.node.name for step in plan.steps])
    commit = commit_build(model, root, to.commit, bundle, metrics, to.push, head) if to.commit else None
    publication: Publication | None = None
    if to.publish:
        publication = publish_bundle(model, to.publish, to.alias, root, bundle, metrics, commit)
    write_receipt(root, model, to.asked(root), built, publication)
    return publication


def _announce(plan: Plan, model: str) -> None:
    logger = get_run_logger(model=model)
    logger.info("%s: %s", model, artifacts.summary(plan))
    for step in plan.stale:
        logger.info("  %s: %s", step.node.name, "; ".join(map(str, step.reasons)))
    artifacts.show_plan(plan, model)


def run_stages(plan: Plan, root: Path, used: dict[str, Used], workers: str | None = None) -> dict[str, str]:
    """Run one task a stage, as parallel as the graph allows; what became of each. `used` gets what those took that ran, to their end or to an error; of several tries the last.

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
        ended = {name: state for name, state in states.items() if state.is_completed() or state.is_failed()}
        left = {name: state.result(raise_on_failure=False) for name, state in ended.items()}
        took = {name: found.used if isinstance(found, StageError) else found for name, found in left.items()}
        used.update({name: each for name, each in took.items() if isinstance(each, Used)})
    for error in left.values():
        if isinstance(error, Exception):
            raise error
    return {name: str(state.name) for name, state in states.items()}


@contextmanager
def _alone(root: Path, model: str, plan_only: bool) -> Iterator[None]:
    """One build of a model at a time in a project; who only looks disturbs nobody. Raises Busy where another goes on."""
    with ExitStack() as held:
        try:
            if not plan_only:
                held.enter_context(alone(lock_of_build(root, model)))
        except TransientError as error:
            raise Busy(f"another build of {model} goes on here, so this one is skipped: {error}") from error
        yield
