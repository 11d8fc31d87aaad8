"""The factory's one tree of errors. Each message names the thing, the value, and the remedy.

FactoryError
├── RecipeError        exit 2   params.yaml says something that cannot be
│   └── FanError                the way named to spread work is not there
├── DataError          exit 3   the data set is unusable as it stands
├── ModelError         exit 4   a model folder, teacher or exported file is unusable
│   └── DivergedError           the loss of a training is no number
├── GateError          exit 5   the finished model misses a bound of its recipe
│   └── BudgetError             no point of the front holds the recipe's budget
├── ResourceError      exit 6   disk, memory or permissions
└── TransientError     exit 7   a remote source did not answer: worth a second try
    └── TargetError             the machine that measures did not
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class FactoryError(Exception):
    """Root of every error that the factory raises on purpose. `exit_code` is what its commands exit with."""

    exit_code = 1


class RecipeError(FactoryError):
    """A value in params.yaml is unknown, of the wrong type, or impossible beside another."""

    exit_code = 2


class FanError(RecipeError):
    """Work was to be spread in a way that is unknown, impossible, or lacks its package."""


class DataError(FactoryError):
    """A data set cannot be read, or fails a check that the recipe sets to `fail`."""

    exit_code = 3


class ModelError(FactoryError):
    """A model folder is incomplete, does not match its digest, or disagrees with the data or with its own export."""

    exit_code = 4


class DivergedError(ModelError):
    """A training's loss stopped being a number. `model` has the best epoch's weights; None where no epoch ended, or another process trained."""

    def __init__(self, message: str, model: Any | None = None) -> None:
        super().__init__(message)
        self.model = model


class GateError(FactoryError):
    """The finished model misses at least one bound of the recipe's gate."""

    exit_code = 5


class BudgetError(GateError):
    """No point of the front holds the recipe's budget; the message names the bounds in the way and the nearest points."""


class ResourceError(FactoryError):
    """The machine refuses: no space, no permission, no memory."""

    exit_code = 6


class TransientError(FactoryError):
    """A remote source failed in a way that may pass; the only error that a flow retries."""

    exit_code = 7


class TargetError(TransientError):
    """The machine that measures went away, or its command failed. `measured` has what it had told until then, in the order asked."""

    def __init__(self, message: str, measured: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.measured = list(measured)
