"""What parts are judged by: a loss is above 0 where the point is worse, whichever way the task's number goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import Task
from pipelines.errors import RecipeError
from pipelines.exploring.figures import difference, told
from pipelines.exploring.yardsticks import YARDSTICKS, right_counts, yardstick_of
from pipelines.techniques.span_metrics import span_counts
from tests.pipelines.exploring.fronts import point

ACCURACY, SPANS, BITS = (
    YARDSTICKS[task] for task in ("text-classification", "token-classification", "text-generation")
)


def test_accuracy_is_the_share_of_right_answers() -> None:
    ours, theirs = right_counts(np.array([1, 0, 0, 1], bool)), right_counts(np.array([1, 1, 0, 1], bool))
    assert (ACCURACY.of(ours), ACCURACY.of(theirs)) == (0.5, 0.75)
    lost = ACCURACY.lost(ours, theirs, 2000, 1)
    assert lost.value == 0.25 and lost.low <= 0.25 <= lost.high and lost.high > 0


def test_bits_a_byte_are_of_all_rows_together_and_fewer_are_better() -> None:
    theirs = np.array([[2 * np.log(2), 1.0], [6 * np.log(2), 3.0]])
    ours = theirs * np.array([1.5, 1.0])
    assert BITS.of(theirs) == pytest.approx(2.0) and BITS.of(ours) == pytest.approx(3.0)
    lost = BITS.lost(ours, theirs, 500, 1)
    assert lost.value == pytest.approx(1.0) and lost.low <= lost.value <= lost.high
    assert BITS.lost(theirs, ours, 500, 1).value == pytest.approx(-1.0)


def test_spans_are_counted_and_more_are_better() -> None:
    truth = [["B-CITY", "O"], ["O", "B-CITY"], ["B-CITY", "O"]]
    half = [["B-CITY", "O"], ["O", "O"], ["O", "O"]]
    lost = SPANS.lost(span_counts(truth, half), span_counts(truth, truth), 500, 1)
    assert lost.value == pytest.approx(1 - 0.5) and lost.low <= lost.value <= lost.high


@given(st.floats(0, 10), st.floats(0, 10))
def test_who_loses_wins_nothing(one: float, other: float) -> None:
    for yardstick in YARDSTICKS.values():
        assert yardstick.loss(one, other) == -yardstick.loss(other, one)
        assert (yardstick.loss(one, other) > 0) == ((one < other) if yardstick.more_is_better else (one > other))


def test_the_names_of_bounds_are_those_of_the_budgets() -> None:
    for yardstick in YARDSTICKS.values():
        assert {yardstick.bound, yardstick.rate_bound} <= set(yardstick.budget.model_fields)
    assert (BITS.bound, BITS.rate_bound, BITS.rate) == ("max_bits_per_byte_loss", "min_tokens_per_s", "tokens/s")


def test_what_people_read() -> None:
    here = point(2.0, 0.5, 3.0)
    assert difference(here, ACCURACY) == "−3.00 (−3.20 to −2.80)"
    assert difference(here, BITS) == "+0.0300 (+0.0280 to +0.0320)"
    assert (told(0.912, ACCURACY), told(1.66441, BITS)) == ("91.2 %", "1.664 bits a byte")
    assert ACCURACY.read(-0.000001) == "0.00"


def test_a_task_without_parts_is_refused() -> None:
    task = Task.model_construct(type="text-to-text", seed=1, max_length=8, threads=1)
    with pytest.raises(RecipeError, match=r"task\.type is text-to-text: a budget shapes text-classification, "):
        yardstick_of(task)
