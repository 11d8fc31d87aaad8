"""The front on disk: the points, the teacher's counts, the picture and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Lineage, read_json, write_json
from pipelines.config import Form, Task
from pipelines.errors import DataError
from pipelines.exploring.drawing import draw_front, front_svg
from pipelines.exploring.estimating import error_of
from pipelines.exploring.page import front_page
from pipelines.exploring.points import Point, Reference, read_points, write_points
from pipelines.exploring.targets import Reached
from pipelines.exploring.yardsticks import Yardstick, yardstick_of

POINTS, COUNTS, FORMS, TEACHER = "points.parquet", "teacher.npy", "quantizations.json", "teacher.json"
#: What the times were taken on, and by which command it was reached.
TARGET = "target.json"
PICTURE, PAGE = "front.png", "front.html"


@dataclass(frozen=True)
class Front:
    """What `explore` leaves for the choice: the points, the teacher's counts on validation [N, K], what each quantization is."""

    points: list[Point]
    teacher: np.ndarray
    forms: Mapping[str, Any]


def write_front(folder: Path, points: Sequence[Point], teacher: np.ndarray | None, forms: Mapping[str, Form]) -> None:
    """Write the table, the quantizations by name, and beside points the teacher's counts, a row a validation text."""
    write_points(folder / POINTS, points)
    write_json(folder / FORMS, {name: form.model_dump() for name, form in forms.items()})
    if teacher is not None:
        np.save(folder / COUNTS, teacher)


def read_front(folder: Path) -> Front:
    """The front of a folder; without points where nothing was explored. Raises DataError where it is damaged."""
    points = read_points(folder / POINTS)
    return Front(points, _read_counts(folder / COUNTS) if points else np.empty((0, 0)), read_json(folder / FORMS))


def _read_counts(path: Path) -> np.ndarray:
    try:
        counts: np.ndarray = np.load(path, allow_pickle=False)
        return counts
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: no counts of the teacher ({error}); `dvc repro explore` writes them again") from error


def draw(folder: Path, points: Sequence[Point], teacher: Reference, reached: Reached, yardstick: Yardstick) -> None:
    """Write the teacher's figures, what was timed on, the picture, and the page, which is named after the folder of the model's build."""
    write_json(folder / TEACHER, asdict(teacher))
    write_json(folder / TARGET, reached.target.model_dump() | {"machine": asdict(reached.machine)})
    draw_front(points, teacher, None, yardstick, folder / PICTURE)
    page = front_page(points, teacher, None, yardstick, folder.parent.name, facts_of(points, reached))
    (folder / PAGE).write_text(page, encoding="utf-8")


def chart_of(folder: Path, lineage: Lineage, task: Task) -> str | None:
    """The front as inline SVG with the point that `prune` has chosen; None where nothing was chosen. DataError where it is damaged."""
    chosen = [entry["chosen"] for entry in lineage["stages"] if "chosen" in entry]
    if not chosen:
        return None
    return front_svg(
        read_points(folder / POINTS), Reference(**read_json(folder / TEACHER)), Point(**chosen[-1]), yardstick_of(task)
    )


def facts_of(points: Sequence[Point], reached: Reached) -> dict[str, str]:
    """What a reader should know of the measurements."""
    target = reached.target
    place = "on the machine of the build" if target.command is None else f"by `{' '.join(target.command)}`"
    ms = error_of([point.estimated_p50_ms for point in points], [point.p50_ms for point in points])
    size = error_of([point.estimated_bytes for point in points], [point.bytes for point in points])
    return {
        "points": f"{len(points)} measured, {sum(point.on_front for point in points)} of them beaten by no other",
        "error of estimated milliseconds": f"{ms.median:.1%} in the median, {ms.largest:.1%} at most",
        "error of estimated bytes": f"{size.median:.1%} in the median, {size.largest:.1%} at most",
        "not steady": f"{sum(not point.steady for point in points)} points",
        "timed": f"{place}, threads: {target.threads}; {reached.machine}",
    }
