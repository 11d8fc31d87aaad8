from __future__ import annotations

import numpy as np
import pytest

from pipelines.techniques import metrics


def test_wilson_interval_of_a_known_case() -> None:
    truth = np.zeros(100, dtype=np.int64)
    predicted = np.array([0] * 90 + [1] * 10)
    interval = metrics.accuracy(truth, predicted)
    assert interval.value == pytest.approx(0.9)
    assert (interval.low, interval.high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))


def test_bootstrap_agrees_with_resampled_rows() -> None:
    """The multinomial shortcut against the plain bootstrap over rows, one more on either side."""
    rng = np.random.default_rng(0)
    truth = np.zeros(300, dtype=np.int64)
    model, teacher = (rng.random((2, 300)) > np.array([[0.85], [0.9]])).astype(np.int64)
    quick = metrics.paired_difference(truth, model, teacher, 20_000, seed=1)
    gain = (model == truth).astype(int) - (teacher == truth).astype(int)
    more = np.append(gain, [1, -1])
    slow = [more[rng.integers(0, 302, 302)].mean() for _ in range(20_000)]
    assert quick.value == pytest.approx(gain.mean())
    assert [quick.low, quick.high] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.004)


def test_the_difference_is_paired() -> None:
    truth = np.zeros(1000, dtype=np.int64)
    same = np.array([0] * 800 + [1] * 200)
    found = metrics.paired_difference(truth, same, same, 10_000, seed=0)
    assert found.value == 0.0 and -0.004 < found.low < 0 < found.high < 0.004


def test_few_rows_on_which_both_agree_leave_room_for_a_difference() -> None:
    """None of 100 rows: with 95 % confidence a side may still lose about 3 in 100 (Hanley & Lippman-Hand 1983)."""
    truth = np.zeros(100, dtype=np.int64)
    found = metrics.paired_difference(truth, truth, truth, 10_000, seed=0)
    assert 0.02 < found.high < 0.04 and -0.04 < found.low < -0.02


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.4, 0.6]])
    truth = np.array([0, 1, 0, 1])
    bins = metrics.reliability(truth, probabilities, 10)
    assert [(item.rows, item.accuracy) for item in bins] == [(2, 1.0), (2, 0.5)]
    assert metrics.calibration_error(bins) == pytest.approx((2 * 0.375 + 2 * 0.45) / 4)


def test_confidence_of_one_falls_into_the_last_bin() -> None:
    bins = metrics.reliability(np.array([0]), np.array([[1.0, 0.0]]), 15)
    assert [(item.low, item.high) for item in bins] == [(14 / 15, 1.0)]


def test_per_class_and_macro_f1_agree() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    rows = metrics.per_class(truth, predicted, ["a", "b", "c"])
    assert [row.f1 for row in rows] == [pytest.approx(0.5), pytest.approx(0.8), 0.0]
    assert metrics.macro_f1(truth, predicted, 3) == pytest.approx((0.5 + 0.8 + 0) / 3)
