"""A made-up front of five points and its teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipelines.exploring.points import Point, Reference
from tests.pipelines.exploring.test_points import POINT

TEACHER = Reference(quality=0.92, p50_ms=11.8, bytes=90_900_000)


def point(megabytes: float, ms: float, lost: float, **more: Any) -> Point:
    """A point `lost` points below the teacher, its intervals 0.2 points and 0.02 ms to each side."""
    loss = lost / 100
    times = {"p50_ms": ms, "p50_low": ms - 0.02, "p50_high": ms + 0.02, "per_s": 600 / ms}
    ends = {"loss_low": loss - 0.002, "loss_high": loss + 0.002}
    kept = {"bytes": int(megabytes * 1e6), "quality": TEACHER.quality - loss, "loss": loss}
    return replace(POINT, **kept, **times, **ends, **more)


# Fewest bytes at place 0, fastest at 2, which is as large as the more accurate 1; most accurate at 3; 4 is beaten.
POINTS = [
    point(2.0, 0.50, 3.0, layers="5", quantization="static_int8"),
    point(3.5, 0.70, 1.0),
    point(3.5, 0.40, 2.0, layers="2,5"),
    point(9.0, 1.20, 0.5, quantization="none"),
    point(9.5, 1.30, 3.1, quantization="none", on_front=False, steady=False),
]
