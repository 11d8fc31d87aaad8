"""Which parts are recovered, in which order; the recoveries themselves are run in tests/pipelines/stages/test_explore.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.config import Budget
from pipelines.errors import BudgetError
from pipelines.exploring.building import build_chosen
from pipelines.exploring.points import Point
from pipelines.exploring.recoveries import Recovered, Recovery
from pipelines.techniques.metrics import Interval
from tests.pipelines.exploring.fronts import TEACHER, point

NOTHING = dict.fromkeys(Budget.model_fields)


class Recorder:
    """In place of a real recovery: what was asked for, and a loss that is told beforehand by the part's layers.

    `before` is what a part had lost in torch when it was cut out: as much as its points, so that no quantization took any.
    """

    def __init__(self, losses: dict[str, float], attempts: int, before: float = 3.0) -> None:
        self.losses, self.asked, self.before = losses, list[str](), TEACHER.quality - before / 100
        self.wanted = SimpleNamespace(hope=5.0, attempts=attempts)
        self.task = SimpleNamespace(threads=1, type="text-classification")
        self.parts = SimpleNamespace(
            plain=lambda _: SimpleNamespace(model=SimpleNamespace(load_state_dict=lambda _: None))
        )

    def __call__(self, recovery: Recovery) -> Recovered:
        layers = ",".join(map(str, recovery.part.layers))
        self.asked.append(layers)
        high = self.losses[layers] / 100
        return Recovered({}, [], Interval(high - 0.01, high - 0.02, high), self.before)


def build(recorder: Any, points: Sequence[Point]) -> Point:
    return build_chosen(recorder, points, Budget(**NOTHING | {"max_accuracy_loss": 2.0, "cheapest": "bytes"}))[2]


def test_a_part_that_fails_is_not_recovered_again_in_another_quantization() -> None:
    small = point(1.0, 0.5, 3.0, layers="5", quantization="int4")
    points = [small, replace(small, bytes=1_500_000, quantization="int8"), point(3.0, 0.7, 3.0, layers="2,5")]
    recorder = Recorder({"5": 2.5, "2,5": 1.5}, attempts=2)
    assert build(recorder, points) == points[2]
    assert recorder.asked == ["5", "2,5"]


def test_what_a_quantization_took_counts_after_recovery_too() -> None:
    """Half a point of int4's loss is its own: 1.8 in torch would be 2.3 in the file. Of int8 it would be 1.8."""
    small = point(1.0, 0.5, 3.5, layers="5", quantization="int4")
    points = [small, point(1.5, 0.5, 3.0, layers="5", quantization="int8"), point(3.0, 0.7, 1.0, layers="2,5")]
    recorder = Recorder({"5": 1.8, "2,5": 1.0}, attempts=2)
    assert build(recorder, points) == points[1]
    assert recorder.asked == ["5"]


def test_a_quantization_that_gained_something_earns_nothing_for_the_part() -> None:
    lucky = point(1.0, 0.5, 2.5, layers="5")
    with pytest.raises(BudgetError, match=r"2\.10 points lost"):
        build(Recorder({"5": 2.1}, attempts=2), [lucky])


def test_the_last_attempt_is_for_a_part_that_holds_as_it_was_measured() -> None:
    sizes = ((1.0, "5", 3.0), (2.0, "2,5", 3.0), (3.0, "3,5", 3.0), (4.0, "0,2,5", 1.0), (5.0, "0,3,5", 0.5))
    points = [point(size, 0.5, lost, layers=layers) for size, layers, lost in sizes]
    recorder = Recorder({"5": 2.5, "2,5": 2.4, "3,5": 2.3, "0,2,5": 2.2, "0,3,5": 0.1}, attempts=2)
    assert build(recorder, points) == points[3], "recovery or not, it holds as the front has it"
    assert recorder.asked == ["5", "0,2,5"]


def test_attempts_are_parts() -> None:
    points = [point(size, 0.5, 3.0, layers=layers) for size, layers in ((1.0, "5"), (2.0, "2,5"), (3.0, "0,2,5"))]
    recorder = Recorder({"5": 2.5, "2,5": 2.4, "0,2,5": 0.0}, attempts=2)
    with pytest.raises(
        BudgetError, match=r"none of 2 parts holds max_accuracy_loss 2\.0 after recovery: .*2\.50 points lost"
    ):
        build(recorder, points)
    assert recorder.asked == ["5", "2,5"]
