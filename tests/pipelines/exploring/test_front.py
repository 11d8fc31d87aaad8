"""The front on disk: what the choice reads of it, and what is said where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.exploring.front import read_front, write_front
from tests.pipelines.exploring.fronts import POINTS

COUNTS = np.array([[1, 1], [0, 1]])


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_front(tmp_path, POINTS, COUNTS, {})
    front = read_front(tmp_path)
    assert front.points == POINTS and (front.teacher == COUNTS).all() and front.forms == {}


@pytest.mark.parametrize("content", [None, b"", b"no numbers"])
def test_lost_counts_say_how_to_make_them_again(tmp_path: Path, content: bytes | None) -> None:
    write_front(tmp_path, POINTS, COUNTS, {})
    counts = tmp_path / "teacher.npy"
    counts.unlink() if content is None else counts.write_bytes(content)
    with pytest.raises(DataError, match=r"teacher\.npy: no counts of the teacher .*dvc repro explore"):
        read_front(tmp_path)
