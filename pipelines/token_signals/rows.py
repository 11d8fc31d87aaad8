"""A teacher's word on N predictions, as losses read it: the k likeliest tokens, or draws from its distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["top_k", "sampled"]

#: Natural log of the smallest probability that is told from zero: beside the likeliest token, and outside the top k.
FLOOR = -16.0


@dataclass(frozen=True)
class TopKRows:
    """The k likeliest tokens of N predictions, likeliest first, and the log of the probability of all others.

    ids [N, k] int64, log_probs [N, k] float32 under the teacher's whole distribution, log_tail [N] float32, at least -16.
    """

    ids: Array
    log_probs: Array
    log_tail: Array

    @staticmethod
    def of(ids: Array, log_probs: Array) -> TopKRows:
        """Rows whose tail is what the k log-probabilities leave of one."""
        left = 1 - np.exp(log_probs.astype(np.float64)).sum(-1)
        tail = np.log(np.maximum(left, np.exp(FLOOR)))
        return TopKRows(ids.astype(np.int64), log_probs.astype(np.float32), tail.astype(np.float32))

    def part(self, rows: Array) -> TopKRows:
        """Some of the rows."""
        return TopKRows(self.ids[rows], self.log_probs[rows], self.log_tail[rows])


@dataclass(frozen=True)
class SampledRows:
    """Draws from the teacher's distribution for N predictions: distinct ids, and how often each was drawn.

    ids [N, D] int64 and counts [N, D] int64; unused places at a row's end have id 0 and count 0. Each row's counts add up
    to the draws, and counts / draws is an unbiased estimate of the teacher's probabilities.
    """

    ids: Array
    counts: Array

    def part(self, rows: Array) -> SampledRows:
        """Some of the rows."""
        return SampledRows(self.ids[rows], self.counts[rows])


Rows = TopKRows | SampledRows
