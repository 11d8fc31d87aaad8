"""The board on the tiny corpus, with the real teacher: every system is built, measured and on the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as board_program
from benchmarks import chain
from benchmarks.__main__ import main
from benchmarks.chain import recipe_for
from pipelines.config import ClassificationRecipe
from pipelines.environment import ROOT
from tests.tiny import tiny_rows, write_csv

SYSTEMS = ["tfidf", "teacher-torch", "teacher-ort", "teacher-int8", "factory"]


def short_recipe(name: str, source: Path) -> dict[str, Any]:
    """The board's recipe with one pass over the rows a training; one thread, since two spin while another worker has the core."""
    block = recipe_for(name, source)
    block["task"]["threads"] = 1
    for training in (block["teach"]["training"], block["distill"]["training"], block["prune"]["recovery"]):
        training["epochs"] = 1
    return block


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    rows = [(text, "oos" if label == "login" else label) for text, label in tiny_rows()]
    for name, part in {"train": rows[0::2], "validation": rows[1::4], "test": rows[3::4]}.items():
        write_csv(folder / "tiny" / f"{name}.csv", part)
    outputs = [
        "--out",
        str(folder / "rows.json"),
        "--table",
        str(folder / "table.md"),
        "--picture",
        str(folder / "b.svg"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "recipe_for", short_recipe)
        # The board's own settings measure for minutes what is here only looked at for being there.
        patch.setattr(board_program, "LATENCY_ROUNDS", 30)
        patch.setattr(board_program, "THROUGHPUT_SECONDS", 0.1)
        assert main(["--data", str(folder / "tiny"), "--work", str(folder / "work"), *outputs]) == 0
    return folder


def test_one_row_a_system_with_every_figure(board: Path) -> None:
    rows = json.loads((board / "rows.json").read_text())
    assert [row["system"] for row in rows] == SYSTEMS
    for row in rows:
        assert {"data", "accuracy", "bytes", "p50_ms", "texts_per_s", "build_s"} <= set(row)
        assert {"in_scope_accuracy", "out_of_scope_recall"} <= set(row)
        assert 0 <= row["accuracy"] <= 1
        assert min(row["bytes"], row["p50_ms"], row["texts_per_s"], row["build_s"]) > 0
    size = {row["system"]: row["bytes"] for row in rows}
    assert size["factory"] < size["teacher-int8"] < size["teacher-ort"]


def test_the_table_and_the_picture_show_all_of_them(board: Path) -> None:
    table, picture = (board / "table.md").read_text(), (board / "b.svg").read_text()
    for system in SYSTEMS:
        assert f"| `{system}` |" in table
    assert "oos recall %" in table
    assert picture.count("<svg") == 1


def test_the_boards_recipes_are_valid() -> None:
    assert ClassificationRecipe.model_validate(chain.recipe_for("anything", ROOT)).task.type == "text-classification"


def test_a_folder_without_test_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["--out", "r", "--table", "t", "--picture", "p", "--work", "w"]
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), *outputs])
    assert "train.csv, validation.csv, test.csv missing" in capsys.readouterr().err
