"""What a build can end with. Every message is one that a user can act upon.

FlowError
├── GraphError         exit 2   dvc.yaml cannot be read, or holds no such model
├── PublishError       exit 1   the bundle lacks what the registry's record needs
├── Busy               exit 7   another build of the model goes on here
├── HistoryError       exit 2   git cannot keep what was built
└── StageError                  a stage failed; `kind` is the class that the stage named, `exit_code` is that class's
    ├── GateFailed     exit 5   the finished model misses a bound
    ├── BadInput       exit 2-4 recipe, data set or model folder is at fault: a second try gives the same
    ├── StageFailed    exit 6/1 no space, no memory, or an error that nobody foresaw
    └── Transient      exit 7   may pass on a second try: the only kind that is retried
        └── Locked     exit 7   another DVC process holds what the stage needs
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from pipelines import errors as pipeline_errors
from pipelines.errors import DataError, FactoryError, GateError, ModelError, RecipeError, TransientError

if TYPE_CHECKING:
    from flows.transcript import Used


class FlowError(Exception):
    """Root of every error that a flow raises on purpose. `exit_code` is what `python -m flows` exits with."""

    exit_code = 1


class GraphError(FlowError):
    """DVC's graph cannot be read, or does not hold what was asked for."""

    exit_code = 2


class PublishError(FlowError):
    """The bundle cannot be published as it stands."""


class Busy(FlowError):
    """Another build of the same model goes on in this project."""

    exit_code = 7


class HistoryError(FlowError):
    """Git cannot keep the build's record, or lacks what it was made from."""

    exit_code = 2


class StageError(FlowError):
    """A stage failed: which one, of what kind, what it said, and what it took where it lived to tell."""

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(stage, kind, message)
        self.stage = stage
        self.kind = kind
        self.message = message
        known = stage_error_kinds().get(kind)
        self.exit_code = known.exit_code if known else 1
        self.used: Used | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind}: {self.message}"


class GateFailed(StageError):
    """The finished model misses at least one bound of its recipe."""


class BadInput(StageError):
    """The recipe, the data set or a model folder is at fault."""


class StageFailed(StageError):
    """The machine refused, or the stage broke in a way that nobody foresaw."""


class Transient(StageError):
    """A remote source did not answer; worth a second try."""


class Locked(Transient):
    """Another DVC process holds a lock that the stage needs."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, TransientError.__name__, message)
        self.args = (stage, message)


def stage_error_kinds() -> dict[str, type[FactoryError]]:
    """Name -> class of every error that a stage prints as `Name: message`."""
    classes = inspect.getmembers(pipeline_errors, inspect.isclass)
    return {name: cls for name, cls in classes if issubclass(cls, FactoryError)}


def stage_error(stage: str, kind: str, message: str) -> StageError:
    """The exception for what a stage printed."""
    known = stage_error_kinds().get(kind, FactoryError)
    if issubclass(known, GateError):
        return GateFailed(stage, kind, message)
    if issubclass(known, TransientError):
        return Transient(stage, kind, message)
    if issubclass(known, RecipeError | DataError | ModelError):
        return BadInput(stage, kind, message)
    return StageFailed(stage, kind, message)
