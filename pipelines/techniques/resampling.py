"""The paired bootstrap over rows, for any number that is computed from sums over rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.techniques.metrics import Interval

#: Resamples that stand in memory at once.
CHUNK = 100

#: Sums over rows [K] in, the number out.
OfSums = Callable[[np.ndarray], float]


def paired_bootstrap(ours: np.ndarray, theirs: np.ndarray, value: OfSums, samples: int, seed: int) -> Interval:
    """value(ours) - value(theirs) with its 95 % percentile interval (Efron 1979); counts [N, K] of the same rows on both sides.

    Rows are drawn with both sides' counts together, so what makes a row hard for both does not widen the interval.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"counts {ours.shape} and {theirs.shape} are not of the same rows")
    random, differences = np.random.default_rng(seed), np.empty(samples)
    chances = np.full(len(ours), 1 / len(ours))
    for start in range(0, samples, CHUNK):
        draws = random.multinomial(len(ours), chances, size=min(CHUNK, samples - start))
        pairs = zip(draws @ ours, draws @ theirs, strict=True)
        differences[start : start + len(draws)] = [value(one) - value(other) for one, other in pairs]
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return Interval(value(ours.sum(axis=0)) - value(theirs.sum(axis=0)), float(low), float(high))
