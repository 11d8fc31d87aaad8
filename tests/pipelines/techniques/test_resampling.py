from __future__ import annotations

import numpy as np
import pytest

from pipelines.techniques.resampling import paired_bootstrap


def ratio(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


def slow_bootstrap(ours: np.ndarray, theirs: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """Rows drawn one by one."""
    random, found = np.random.default_rng(seed), []
    for _ in range(samples):
        rows = random.integers(0, len(ours), len(ours))
        found.append(ratio(ours[rows].sum(axis=0)) - ratio(theirs[rows].sum(axis=0)))
    return tuple(np.percentile(found, [2.5, 97.5]))


def test_the_interval_is_that_of_rows_drawn_one_by_one() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(5, 50, 200).astype(float)
    hard = random.gamma(2, 1, 200)
    ours = np.stack([sizes * hard, sizes], axis=1)
    theirs = np.stack([sizes * (hard - 0.2 + 0.1 * random.normal(size=200)), sizes], axis=1)
    found = paired_bootstrap(ours, theirs, ratio, 4000, seed=1)
    low, high = slow_bootstrap(ours, theirs, 4000, seed=2)
    assert found.value == pytest.approx(ratio(ours.sum(axis=0)) - ratio(theirs.sum(axis=0)))
    assert found.low == pytest.approx(low, abs=0.003)
    assert found.high == pytest.approx(high, abs=0.003)


def test_what_is_hard_for_both_does_not_widen_it() -> None:
    sizes = np.linspace(1, 100, 50)
    ours = np.stack([sizes**2 + 0.5 * sizes, sizes], axis=1)
    theirs = np.stack([sizes**2, sizes], axis=1)
    found = paired_bootstrap(ours, theirs, ratio, 200, seed=1)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_same_seed_gives_the_same_interval_and_other_rows_are_refused() -> None:
    rows = np.random.default_rng(3).random((40, 2))
    assert paired_bootstrap(rows, rows[::-1], ratio, 300, 5) == paired_bootstrap(rows, rows[::-1], ratio, 300, 5)
    with pytest.raises(ValueError, match="not of the same rows"):
        paired_bootstrap(rows, rows[:-1], ratio, 100, 5)
