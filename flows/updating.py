"""What a model is made from, as it stands at its origin today: `dvc update` of each import that the model's stages need."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task

from flows import child
from flows.errors import StageError, Transient
from flows.graph import Plan
from flows.publish import AGAIN, may_pass
from flows.stage import child_environment
from flows.transcript import Transcript
from pipelines.errors import TransientError


def imports_of(plan: Plan) -> list[str]:
    """The .dvc files among a model's stages whose data is imported from elsewhere."""
    return [step.node.name for step in plan.steps if step.node.imported]


@task(name="update", task_run_name="update · {model}", retry_condition_fn=may_pass, **AGAIN)  # type: ignore[untyped-decorator]
def update_imports(model: str, root: Path, imports: Sequence[str]) -> None:
    """Fetch what changed at the origins of imports; where one cannot be had, all stay as they were.

    Raises Transient where an origin does not answer or lacks the data, or another DVC process holds a lock.
    """
    if error := _dvc(root, model, "update", *imports):
        # DVC removes what it has before it looks for what is new.
        _dvc(root, model, "checkout", "--force", *imports)
        raise error


def _dvc(root: Path, model: str, command: str, *arguments: str) -> StageError | None:
    """Run a command of DVC's, its lines in the run's log; the error that it ended with."""
    transcript, logger = Transcript(command), get_run_logger(model=model, stage=command)

    def each(line: str) -> None:
        if transcript.read(line):
            logger.info(line)

    words = [sys.executable, "-m", "dvc", "--wait-for-lock", command, *arguments]
    if not (code := child.run(words, cwd=root, env=child_environment(), stop=threading.Event(), each=each)):
        return None
    error = transcript.error(code)
    return error if isinstance(error, Transient) else Transient(command, TransientError.__name__, error.message)
