"""How the next token is chosen from the model's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm_registry.errors import CorruptError, UsageError
from slm_registry.runtime.arguments import at_least_one

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What shapes the distribution that a token is drawn from; temperature 0 takes the likeliest and draws nothing.

    In this order: scores of tokens that stand in the text already are divided (below 0 multiplied) by
    `repetition_penalty` (Keskar et al. 2019, arXiv:1909.05858), all are divided by `temperature`, the `top_k` likeliest
    are kept, then of these the fewest whose probability is `top_p` or more (Holtzman et al. 2020, arXiv:1904.09751).
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not _number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature!r}; give a number, 0 or more")
        if self.top_k is not None:
            at_least_one("top_k", self.top_k)
        if self.top_p is not None and (not _number(self.top_p) or not 0 < self.top_p <= 1):
            raise UsageError(f"top_p is {self.top_p!r}; give a probability above 0, at most 1")
        if not _number(self.repetition_penalty) or not 0 < self.repetition_penalty < math.inf:
            raise UsageError(f"repetition_penalty is {self.repetition_penalty!r}; give a number above 0 (1: none)")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise UsageError(f"seed is {self.seed!r}; give a whole number, 0 or more")

    def generator(self, row: int) -> np.random.Generator:
        """Where one row's draws come from: they depend on the seed and the row's place, not on rows beside it."""
        import numpy as np

        return np.random.default_rng(None if self.seed is None else [self.seed, row])


def choose(
    logits: NDArray[np.float32], sampling: Sampling, written: Sequence[Sequence[int]], generators: Sequence[Any]
) -> list[int]:
    """The next token of each row: logits [B, V], `written` each row's tokens so far. Raises CorruptError for NaN."""
    import numpy as np

    if sampling.repetition_penalty != 1:
        logits = logits.copy()
        for row, tokens in zip(logits, written, strict=True):
            seen = np.unique(np.asarray(tokens))
            factor = np.where(row[seen] < 0, sampling.repetition_penalty, 1 / sampling.repetition_penalty)
            row[seen] *= factor
    # Where there is a NaN, it is this.
    likeliest = logits.argmax(axis=1)
    if np.isnan(logits[np.arange(len(logits)), likeliest]).any():
        raise CorruptError("the model answers NaN where it should score tokens; export it again")
    if sampling.temperature == 0:
        return [int(token) for token in likeliest]
    return [_drawn(row, sampling, generator) for row, generator in zip(logits, generators, strict=True)]


def _drawn(logits: NDArray[np.float32], sampling: Sampling, generator: Any) -> int:
    """One token of logits [V]: the inverse of the cumulative probability, tokens in the order of their numbers."""
    import numpy as np

    scaled = (logits.astype(np.float64) - logits.max()) / sampling.temperature
    kept = np.arange(len(scaled))
    if sampling.top_k is not None and sampling.top_k < len(scaled):
        kept = np.sort(np.argpartition(scaled, -sampling.top_k)[-sampling.top_k :])
    weights = np.exp(scaled[kept])
    if sampling.top_p is not None and sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        total = np.cumsum(weights[order])
        inside = np.sort(order[: int(np.searchsorted(total, sampling.top_p * total[-1])) + 1])
        kept, weights = kept[inside], weights[inside]
    total = np.cumsum(weights)
    place = int(np.searchsorted(total, generator.random() * total[-1], side="right"))
    return int(kept[min(place, len(kept) - 1)])


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
