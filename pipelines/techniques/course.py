"""Where a training stands, and all that it needs to go on from there with the same bytes at its end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Score:
    """What validation says after an epoch; ordered by accuracy, then by loss."""

    accuracy: float
    loss: float

    def better_than(self, other: Score | None) -> bool:
        """Whether this score should replace the other."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass(frozen=True)
class EpochRecord:
    """One row of a loss curve."""

    phase: str
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float

    def row(self) -> dict[str, Any]:
        """As a dictionary, for CSV."""
        return asdict(self)


#: What of a course is kept as JSON has it.
FACTS = ("step", "parts", "losses", "best", "ended")


@dataclass(frozen=True)
class Kept:
    """A training as it is kept: tensors by name, and the rest as JSON has it."""

    tensors: Mapping[str, Tensor]
    facts: dict[str, Any]


class Keeper(Protocol):
    """Where trainings are kept, each by the name of its curve, so that one that was ended from outside goes on."""

    def load(self, phase: str) -> Kept | None:
        """What is kept of a training; None where there is nothing."""

    def due(self) -> bool:
        """Whether it is time to keep one again."""

    def keep(self, phase: str, kept: Kept) -> None:
        """Put it in the place of what was kept of this training."""


class Unkept:
    """No such place: for a training that is begun anew in any case."""

    def load(self, phase: str) -> Kept | None:
        """See Keeper."""
        return None

    def due(self) -> bool:
        """See Keeper."""
        return False

    def keep(self, phase: str, kept: Kept) -> None:
        """See Keeper."""


@dataclass
class Course:
    """A training under way: `step` steps are done, `losses` are those of the epoch that has begun, `records` of those that ended.

    `best` is the number of the best epoch, 0 before any, `kept` its weights, `waited` the epochs since. `parts` is how many pieces
    a batch is cut into, `begun` the digest of what the training began with.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    begun: str
    step: int = 0
    parts: int = 1
    losses: list[float] = field(default_factory=list)
    records: list[EpochRecord] = field(default_factory=list)
    best: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    ended: bool = False

    @property
    def epoch(self) -> int:
        """The number of the epoch under way."""
        return len(self.records) + 1

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.records) - self.best

    def best_as(self, score: Score) -> Score | None:
        """The best epoch's score, in the kind of another; None before any."""
        if not self.best:
            return None
        record = self.records[self.best - 1]
        return type(score)(record.validation_accuracy, record.validation_loss)

    def packed(self) -> Kept:
        """All of it, to be written before the next step; of a training that has ended, the weights it ended with."""
        tensors = _named("model", self.model.state_dict())
        if not self.ended:
            tensors |= _named("best", self.kept)
            for index, state in self.optimizer.state_dict()["state"].items():
                tensors |= _named(f"optimizer/{index}", state)
        facts = {name: getattr(self, name) for name in (*FACTS, "begun")}
        return Kept(_apart(tensors), facts | {"records": [record.row() for record in self.records]})

    def unpack(self, found: Kept) -> bool:
        """Stand where another training stood; whether it began with the same."""
        if found.facts["begun"] != self.begun:
            return False
        for name in FACTS:
            setattr(self, name, found.facts[name])
        self.records = [EpochRecord(**row) for row in found.facts["records"]]
        self.model.load_state_dict(_below("model", found.tensors))
        if not self.ended:
            self.kept = _below("best", found.tensors)
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": _optimizer_state(found.tensors)})
        return True


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, weights that a model ties each for itself: files of tensors refuse those that share memory."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return found


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own: those of a file are views of it, and keep it from being let go of."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor.clone() for name, tensor in tensors.items() if name.startswith(start)}


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimizer", tensors).items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    return state


def batch_order(seed: int, epoch: int) -> np.random.Generator:
    """The random numbers that order an epoch's batches."""
    return np.random.default_rng([seed, 1, epoch])


def chance(seed: int, step: int, rank: int) -> np.random.Generator:
    """The random numbers of one step: those of no other, so that a training that goes on needs none of the steps before.

    What draws without being given a generator (dropout, a checkpoint's own code) begins from them too, each process of several (`rank`) elsewhere;
    what the generator itself decides is the same in all.
    """
    found = np.random.default_rng([seed, 2, step])
    # torch.manual_seed would walk over the stack three times, for kinds of devices that are not there.
    torch.default_generator.manual_seed((int(found.integers(2**63)) + rank) % 2**63)
    random.seed(int(found.integers(2**63)))
    np.random.seed(int(found.integers(2**32)))
    return found


def digest_of_start(model: nn.Module, *facts: object) -> str:
    """What a training began with: its model's weights and config, and facts by their `repr`."""
    digest = hashlib.sha256(repr((str(getattr(model, "config", None)), facts)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        if tensor.numel():
            digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
