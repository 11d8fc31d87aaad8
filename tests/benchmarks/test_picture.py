"""The board's picture: names that do not cover each other, and what falls below the floor."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.picture import draw, spread


def row(system: str, accuracy: float, ms: float) -> dict[str, Any]:
    return {"data": "d", "system": system, "accuracy": accuracy, "p50_ms": ms, "bytes": 5_000_000}


@given(places=st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted), gap=st.floats(0.01, 0.08))
def test_names_keep_their_order_and_their_distance(places: list[float], gap: float) -> None:
    found = spread(places, gap)
    assert len(found) == len(places)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(found))
    assert found[0] >= -1e-9 and found[-1] <= 1 + 1e-9


def test_names_far_apart_stay_where_they_are() -> None:
    assert spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])


def test_every_system_is_named_and_a_collapsed_one_does_not_stretch_the_panel(tmp_path: Path) -> None:
    rows = [
        row("teacher-torch", 0.92, 11.0),
        row("factory", 0.91, 0.5),
        row("tool", 0.915, 1.0),
        row("broken", 0.1, 2.0),
    ]
    draw(rows, tmp_path / "a.svg")
    draw(rows, tmp_path / "b.svg")
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    for name in ("teacher-torch, 5.0 MB", "factory, 5.0 MB", "tool, 5.0 MB", "below: broken (10.0 %)"):
        assert f"<!-- {name} -->" in picture
    # Where 10 % would be drawn the axis has no number.
    assert "<!-- 20 -->" not in picture
