"""Which point a budget takes, and what is said where none holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipelines.config import Budget
from pipelines.errors import BudgetError
from pipelines.exploring.choosing import candidates_for
from pipelines.exploring.yardsticks import YARDSTICKS
from tests.pipelines.exploring.test_points import POINT

ACCURACY = YARDSTICKS["text-classification"]

SMALL = replace(POINT, layers="5", bytes=3_000_000, p50_ms=0.3, p50_low=0.29, p50_high=0.33, loss_high=0.03)
QUICK = replace(POINT, layers="2", bytes=6_000_000, p50_ms=0.2, p50_low=0.19, p50_high=0.21, loss_high=0.012)
POINTS = [POINT, SMALL, QUICK]


def budget(**bounds: Any) -> Budget:
    nothing = dict.fromkeys(("max_bytes", "max_p50_ms", "min_texts_per_s", "max_memory_bytes", "max_accuracy_loss"))
    return Budget.model_validate({**nothing, "cheapest": "bytes", **bounds})


def test_the_cheapest_that_holds_comes_first() -> None:
    assert candidates_for(POINTS, budget(max_p50_ms=1.0), 0.0, ACCURACY) == [SMALL, POINT, QUICK]
    assert candidates_for(POINTS, budget(max_p50_ms=1.0, cheapest="p50_ms"), 0.0, ACCURACY) == [QUICK, SMALL, POINT]
    by_loss = candidates_for(POINTS, budget(max_p50_ms=1.0, cheapest="accuracy_loss"), 0.0, ACCURACY)
    assert by_loss == sorted(POINTS, key=lambda point: (point.loss, point.bytes))


def test_a_bound_holds_by_the_pessimistic_end() -> None:
    assert candidates_for(POINTS, budget(max_p50_ms=0.32), 0.0, ACCURACY) == [
        QUICK
    ]  # 0.30 in the middle, 0.33 at worst
    assert candidates_for(POINTS, budget(max_accuracy_loss=1.5), 0.0, ACCURACY) == [QUICK]


def test_throughput_is_a_bound_from_below_and_memory_one_from_above() -> None:
    points = [
        replace(SMALL, per_s=500.0, peak_memory_bytes=80),
        replace(QUICK, per_s=800.0, peak_memory_bytes=90),
    ]
    assert candidates_for(points, budget(min_texts_per_s=500), 0.0, ACCURACY) == points
    assert candidates_for(points, budget(min_texts_per_s=501), 0.0, ACCURACY) == points[1:]
    assert candidates_for(points, budget(max_memory_bytes=80), 0.0, ACCURACY) == points[:1]
    with pytest.raises(
        BudgetError, match=r"min_texts_per_s and max_memory_bytes exclude each other.*800 texts/s, 90 bytes of memory"
    ):
        candidates_for(points, budget(min_texts_per_s=501, max_memory_bytes=80), 0.0, ACCURACY)


def test_recovery_is_trusted_with_some_points() -> None:
    assert candidates_for(POINTS, budget(max_accuracy_loss=1.5), 1.6, ACCURACY) == [SMALL, POINT, QUICK]


def test_a_budget_that_nobody_meets_says_which_bound_and_what_is_near() -> None:
    with pytest.raises(BudgetError) as caught:
        candidates_for(POINTS, budget(max_bytes=1_000_000), 0.0, ACCURACY)
    said = str(caught.value)
    assert "cannot be met by the 3 points measured: no point holds max_bytes 1,000,000 bytes" in said
    assert said.index("Nearest: 1 layer,") < said.index("3,000,000 bytes") < said.index("5,100,000 bytes")


def test_bounds_that_exclude_each_other_are_named() -> None:
    with pytest.raises(BudgetError, match="max_bytes and max_p50_ms exclude each other"):
        candidates_for(POINTS, budget(max_bytes=4_000_000, max_p50_ms=0.25), 0.0, ACCURACY)


def test_the_trust_in_recovery_is_said_where_it_does_not_suffice() -> None:
    with pytest.raises(
        BudgetError, match=r"no point holds max_accuracy_loss 0\.10 points lost \(even with the 0\.5 that"
    ):
        candidates_for(POINTS, budget(max_accuracy_loss=0.1), 0.5, ACCURACY)


def test_a_front_of_one_point_is_a_front() -> None:
    assert candidates_for([SMALL], budget(max_bytes=3_000_000), 0.0, ACCURACY) == [SMALL]
    with pytest.raises(BudgetError, match="the 1 points measured"):
        candidates_for([SMALL], budget(max_bytes=2_000_000), 0.0, ACCURACY)


def test_no_front_says_how_to_get_one() -> None:
    with pytest.raises(BudgetError, match=r"explore\.technique to search"):
        candidates_for([], budget(max_bytes=1), 0.0, ACCURACY)


def test_a_budget_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="every bound is null; set at least one of max_bytes"):
        budget()
