"""The front's picture: the same bytes for the same points, and nothing in it that has no place."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipelines.errors import DataError
from pipelines.exploring.drawing import draw_front, outline
from pipelines.exploring.points import Point
from tests.pipelines.exploring.fronts import POINTS, TEACHER, point
from tests.pipelines.exploring.test_choosing import ACCURACY
from tests.pipelines.exploring.test_points import POINT


def png(folder: Path, points: list[Point], chosen: Point | None = None) -> bytes:
    draw_front(points, TEACHER, chosen, ACCURACY, folder / "front.png")
    return (folder / "front.png").read_bytes()


def test_the_picture_is_the_same_for_the_same_points(tmp_path: Path) -> None:
    first = png(tmp_path, POINTS, POINTS[2])
    assert png(tmp_path, POINTS, POINTS[2]) == first
    assert png(tmp_path, POINTS, POINTS[1]) != first
    with Image.open(io.BytesIO(first)) as image:
        assert (image.format, image.size) == ("PNG", (1600, 1000))
        assert set(image.info) == {"dpi"}, "no date, no version of the program"
        assert image.convert("RGB").getpixel((1599, 999)) == (255, 255, 255)


def test_the_line_leads_over_the_most_accurate_at_each_speed() -> None:
    beside = point(3.6, 0.40, 2.4)
    assert outline([*POINTS, beside]) == [POINTS[2], POINTS[1], POINTS[3]]


@pytest.mark.parametrize("count", [0, 1])
def test_a_front_of_nothing_and_of_one_point_is_drawn(tmp_path: Path, count: int) -> None:
    assert png(tmp_path, POINTS[:count]).startswith(b"\x89PNG")


def test_a_figure_without_a_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 layers, .*: p50_ms is 0.0, not a number above 0; measure the point again"):
        png(tmp_path, [replace(POINT, p50_ms=0.0)])
    with pytest.raises(DataError, match=r"estimated_loss is nan, not a finite number"):
        png(tmp_path, [replace(POINT, estimated_loss=float("nan"))])
    with pytest.raises(DataError, match=r"the chosen point \(3 layers, .*\) is not one of the 5 points"):
        png(tmp_path, POINTS, POINT)
    assert list(tmp_path.iterdir()) == []
