"""The front's table: what is best, and what survives the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.exploring.points import Point, best, read_points, write_points
from pipelines.techniques.shapes import Slice

POINT = Point(
    layers="1,3,5",
    intermediate_size=768,
    num_attention_heads=12,
    vocabulary=0,
    tokens=2700,
    quantization="dynamic_int8",
    estimated_bytes=5_000_000,
    estimated_p50_ms=0.6,
    estimated_loss=0.01,
    bytes=5_100_000,
    p50_ms=0.62,
    p50_low=0.61,
    p50_high=0.64,
    per_s=900.0,
    peak_memory_bytes=90_000_000,
    quality=0.91,
    loss=0.01,
    loss_low=0.004,
    loss_high=0.016,
    steady=True,
    on_front=True,
)


def test_points_come_back_from_the_disk(tmp_path: Path) -> None:
    bare = replace(POINT, layers="", intermediate_size=0, num_attention_heads=0)
    points = [POINT, replace(POINT, layers="5", quantization="none"), bare]
    write_points(tmp_path / "points.parquet", points)
    assert read_points(tmp_path / "points.parquet") == points
    assert [point.slice for point in points[1:]] == [Slice((5,), 768, 12, 0), Slice((), 0, 0, 0)]
    assert str(bare) == "no layers, 2,700 tokens, dynamic_int8"


def test_no_points_are_a_table_too(tmp_path: Path) -> None:
    write_points(tmp_path / "points.parquet", [])
    assert read_points(tmp_path / "points.parquet") == []


def test_a_damaged_table_says_how_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "points.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"points\.parquet: no table of points .*dvc repro explore"):
        read_points(tmp_path / "points.parquet")


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(numbers: list[tuple[int, int, int]]) -> None:
    points = [replace(POINT, bytes=size, p50_ms=float(ms), loss=bad / 4) for size, ms, bad in numbers]
    kept = best(points)
    assert any(kept)
    for point, stays in zip(numbers, kept, strict=True):
        beaten = any(
            other != point and other[0] <= point[0] and other[1] <= point[1] and other[2] <= point[2]
            for other in numbers
        )
        assert stays != beaten
