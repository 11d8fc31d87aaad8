"""What workers share is made by one of them, whole or not at all, and a change of it does not go unnoticed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.made_once import MadeOnce


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.onnx").write_text("bytes")


def test_the_first_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write(folder)

    def worker(_: int) -> str:
        return (MadeOnce(tmp_path).folder("llama", make) / "model.onnx").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(worker, range(8))) == {"bytes"}
    assert len(made) == 1


def test_what_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        MadeOnce(tmp_path).folder("llama", fail)
    shared = MadeOnce(tmp_path)
    assert shared.folder("llama", write) == tmp_path / "llama"
    assert shared.altered() == []


@pytest.mark.parametrize("name", ["model.onnx", "more"])
def test_a_change_is_noticed(tmp_path: Path, name: str) -> None:
    shared = MadeOnce(tmp_path)
    (shared.folder("llama", write) / name).write_text("other")
    assert shared.altered() == ["llama"]
