"""The figures of points as people read them, and the check that each can be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from pipelines.errors import DataError
from pipelines.exploring.points import Point
from pipelines.exploring.yardsticks import Yardstick

#: Fields that a logarithmic axis shows.
ABOVE_ZERO = ("bytes", "p50_ms", "per_s", "peak_memory_bytes")


def ms(number: float) -> str:
    """Three digits that count, zeros at the end among them."""
    return f"{number:.{max(2 - math.floor(math.log10(abs(number) or 1)), 0)}f}"


def told(number: float, yardstick: Yardstick) -> str:
    """The task's number in short: `92.1 %`, `1.664 bits a byte`."""
    return f"{yardstick.factor * number:.{yardstick.digits - 1}f} {yardstick.unit or yardstick.words}"


def difference(point: Point, yardstick: Yardstick) -> str:
    """What the point has more than the teacher, or less, with the interval."""
    numbers = (point.loss, point.loss_low, point.loss_high)
    if yardstick.more_is_better:
        numbers = (-point.loss, -point.loss_high, -point.loss_low)
    value, low, high = (f"{yardstick.factor * number:+.{yardstick.digits}f}".replace("-", "−") for number in numbers)
    return f"{value} ({low} to {high})"


def check(points: Sequence[Point], chosen: Point | None) -> None:
    """Raises DataError for a figure that no axis has a place for, and where `chosen` is not one of the points."""
    for point in points:
        for field, value in asdict(point).items():
            if isinstance(value, int | float) and (not math.isfinite(value) or (field in ABOVE_ZERO and value <= 0)):
                wanted = "a number above 0" if field in ABOVE_ZERO else "a finite number"
                raise DataError(f"{point}: {field} is {value}, not {wanted}; measure the point again")
    if chosen is not None and chosen not in points:
        raise DataError(f"the chosen point ({chosen}) is not one of the {len(points)} points; choose among them")
