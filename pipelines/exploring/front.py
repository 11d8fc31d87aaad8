"""The front on disk: the points, where the teacher was right, the picture and the page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.exploring.drawing import draw_front
from pipelines.exploring.estimating import error_of
from pipelines.exploring.page import front_page
from pipelines.exploring.points import Point, Reference, read_points, write_points

POINTS, RIGHT, PICTURE, PAGE = "points.parquet", "teacher.npy", "front.png", "front.html"


def write_front(folder: Path, points: Sequence[Point], right: np.ndarray | None) -> None:
    """Write the table, and beside points where the teacher was right, a row a validation text."""
    write_points(folder / POINTS, points)
    if right is not None:
        np.save(folder / RIGHT, right)


def read_front(folder: Path) -> tuple[list[Point], np.ndarray]:
    """The points, and where the teacher was right; neither where nothing was explored."""
    points = read_points(folder / POINTS)
    return points, np.load(folder / RIGHT, allow_pickle=False) if points else np.empty(0, dtype=bool)


def draw(folder: Path, points: Sequence[Point], teacher: Reference) -> None:
    """Write the picture and the page, which is named after the folder of the model's build."""
    draw_front(points, teacher, None, folder / PICTURE)
    page = front_page(points, teacher, None, folder.parent.name, facts_of(points))
    (folder / PAGE).write_text(page, encoding="utf-8")


def facts_of(points: Sequence[Point]) -> dict[str, str]:
    """What a reader should know of the measurements."""
    ms = error_of([point.estimated_p50_ms for point in points], [point.p50_ms for point in points])
    size = error_of([point.estimated_bytes for point in points], [point.bytes for point in points])
    return {
        "points": f"{len(points)} measured, {sum(point.on_front for point in points)} of them beaten by no other",
        "error of estimated milliseconds": f"{ms.median:.1%} in the median, {ms.largest:.1%} at most",
        "error of estimated bytes": f"{size.median:.1%} in the median, {size.largest:.1%} at most",
        "not steady": f"{sum(not point.steady for point in points)} points",
        "machine": platform.machine(),
    }
