"""One Prefect task for one DVC stage. DVC decides what it does; the task runs it, shows it, ends it, and judges its errors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Cancelled, Completed, State
from prefect.tasks import Task

from flows import child
from flows.errors import Transient
from flows.fanout import environment_of
from flows.graph import Node, Step
from flows.stage_page import Gauge, show_stage
from flows.standing import UP_TO_DATE
from flows.trainers import place_to_train
from flows.transcript import Outcome, Transcript, Used

#: Seconds before the second and the third try of a stage that may pass.
RETRY_DELAYS = [3, 9]


def reproduce(
    node: Node, root: Path, stop: threading.Event, show: Callable[[str], None], workers: str | None = None
) -> tuple[Outcome, Used | None]:
    """Run `dvc repro` for one stage alone, or bring what another machine made of the same inputs, and say what came of it and what it took.

    `workers` are those that its work is spread over, where it can be. Raises a StageError where the stage failed, Stopped once
    `stop` is set, FanError where there are no such workers.
    """
    command = [sys.executable, "-m", "flows.repro", node.name]
    transcript = Transcript(node.name)

    def each(line: str) -> None:
        if transcript.read(line):
            show(line)

    code = child.run(command, cwd=root, env=child_environment(workers), stop=stop, each=each)
    if code:
        raise transcript.error(code)
    return transcript.outcome, transcript.used


def child_environment(workers: str | None = None) -> dict[str, str]:
    """A child's environment: this Python first (dvc.yaml says `python`), lines that come as they are printed, its workers.

    What Prefect told this process about its own run is not for a flow of the child's.
    """
    here = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    return ours | {"PATH": f"{here}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"} | environment_of(workers)


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed try deserves another: a remote source or a lock, never a gate, a recipe, data or a model."""
    return isinstance(state.result(raise_on_failure=False), Transient)


@task(  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=list(RETRY_DELAYS),
    retry_condition_fn=may_pass,
)
def run_stage(step: Step, root: Path, stop: threading.Event, workers: str | None = None) -> State[Used | None]:
    """Bring one stage up to date. Its state's name says what happened: Built, Restored, Up to date.

    Raises a StageError where the stage failed.
    """
    logger = get_run_logger(**step.node.speaker)
    if stop.is_set():
        return Cancelled(message="the build was stopped before this stage")
    if not step.stale:
        return Completed(name=UP_TO_DATE, message="nothing changed since it was built")
    try:
        with place_to_train(step.node, stop), Gauge(step.node) as gauge:

            def show(line: str) -> None:
                logger.info(line)
                gauge.read(line)

            outcome, used = reproduce(step.node, root, stop, show, workers)
    except child.Stopped:
        return Cancelled(message="stopped; no process of the stage is left")
    show_stage(step.node, root, outcome, used)
    messages = {
        "built": "ran, and its record stands in dvc.lock",
        "up to date": "looked again: its inputs came out the same",
        "restored": "these inputs were built before, here or on another machine: outputs restored from DVC's run cache",
    }
    return Completed(name=outcome.capitalize(), message=messages[outcome], data=used if outcome == "built" else None)


def stage_task(node: Node) -> Task[..., State[Used | None]]:
    """The task of one stage, named as the stage, its run named `distill · support-intents`."""
    run_name = f"{node.stage} · {node.model}" if node.model else node.stage
    return run_stage.with_options(name=node.stage, task_run_name=run_name, description=node.description or None)
