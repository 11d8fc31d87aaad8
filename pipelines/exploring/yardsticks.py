"""What the parts of a task's student are judged by on validation data, and how people read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.config import AnyBudget, Budget, TaggerBudget, Task, WriterBudget
from pipelines.errors import RecipeError
from pipelines.sequences.main_metric import MAIN
from pipelines.techniques.metrics import Interval, difference_of_right
from pipelines.techniques.resampling import OfSums, paired_bootstrap

#: (ours, theirs, samples, seed), counts [N, K] of the same rows -> ours minus theirs with its 95 % interval.
Difference = Callable[[np.ndarray, np.ndarray, int, int], Interval]


@dataclass(frozen=True)
class Yardstick:
    """A number made of counts [N, K], a row a validation text. Points hold it, and the loss to the teacher, in its own unit.

    People read both times `factor`, with `digits` decimals. Times are of a `piece`: a text, or a token of a text that is written.
    """

    key: str
    words: str
    unit: str
    unit_of_loss: str
    factor: float
    digits: int
    more_is_better: bool
    piece: str
    budget: type[AnyBudget]
    value: OfSums
    difference: Difference

    @property
    def bound(self) -> str:
        """The budget's bound on the loss."""
        return f"max_{self.key}_loss"

    @property
    def rate_bound(self) -> str:
        """The budget's bound on the throughput."""
        return f"min_{self.piece}s_per_s"

    @property
    def rate(self) -> str:
        """What the throughput is of."""
        return f"{self.piece}s/s"

    @property
    def title(self) -> str:
        """What an axis is called."""
        return f"{self.words}, {self.unit}" if self.unit else self.words

    def of(self, counts: np.ndarray) -> float:
        """The number of some rows."""
        return self.value(counts.sum(axis=0))

    def loss(self, ours: float, theirs: float) -> float:
        """By how much the first is worse."""
        return theirs - ours if self.more_is_better else ours - theirs

    def lost(self, ours: np.ndarray, theirs: np.ndarray, samples: int, seed: int) -> Interval:
        """By how much the first counts are worse, with the 95 % interval of a paired bootstrap over rows."""
        found = self.difference(ours, theirs, samples, seed)
        if not self.more_is_better:
            return found
        return Interval(-found.value, -found.high, -found.low)

    def read(self, number: float) -> str:
        """A number as people read it."""
        return f"{round(self.factor * number, self.digits) + 0.0:.{self.digits}f}"  # no minus before a zero


def right_counts(right: np.ndarray) -> np.ndarray:
    """Counts [N, 2] of a classifier that is right where `right` [N] says so."""
    return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)


def _share(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


def _of_right(ours: np.ndarray, theirs: np.ndarray, samples: int, seed: int) -> Interval:
    return difference_of_right(ours[:, 0] == 1, theirs[:, 0] == 1, samples, seed)


def _of_sums(value: OfSums) -> Difference:
    def difference(ours: np.ndarray, theirs: np.ndarray, samples: int, seed: int) -> Interval:
        return paired_bootstrap(ours, theirs, value, samples, seed)

    return difference


BITS, SPANS = MAIN["text-generation"], MAIN["token-classification"]

#: Task -> its yardstick.
YARDSTICKS: dict[str, Yardstick] = {
    "text-classification": Yardstick(
        "accuracy", "accuracy", "%", "points", 100, 2, True, "text", Budget, _share, _of_right
    ),
    "token-classification": Yardstick(
        SPANS.key, SPANS.words, "%", "points", 100, 2, True, "text", TaggerBudget, SPANS.value, _of_sums(SPANS.value)
    ),
    "text-generation": Yardstick(
        BITS.key, BITS.words, "", "bits a byte", 1, 4, False, "token", WriterBudget, BITS.value, _of_sums(BITS.value)
    ),
}


def yardstick_of(task: Task) -> Yardstick:
    """The yardstick of a task. Raises RecipeError where its models cannot be explored."""
    if task.type not in YARDSTICKS:
        raise RecipeError(f"task.type is {task.type}: a budget shapes {', '.join(YARDSTICKS)}")
    return YARDSTICKS[task.type]
