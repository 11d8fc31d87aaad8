"""The board on the tiny corpus, with a tiny teacher: every system is built, measured and on the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as board_program
from benchmarks import budgets, chain, peers, systems
from benchmarks.__main__ import main
from benchmarks.chain import recipe_for
from benchmarks.peers.board import ABOUT
from benchmarks.peers.errors import PeerError
from pipelines.bundle import sha256_of
from pipelines.config import ClassificationRecipe
from pipelines.environment import ROOT
from tests.tiny import tiny_model, tiny_rows, write_csv

SYSTEMS = [
    "tfidf",
    "teacher-torch",
    "teacher-biases",
    "teacher-ort",
    "teacher-int8",
    "factory",
    "factory-static",
    "factory-1x",
    "fake-one",
]
OTHER = {"data": "other", "system": "tfidf", "p50_ms": 1.0, "accuracy": 0.5, "bytes": 1000}
#: What every point is smaller and faster by, and what none is.
SHARES = (1, 100_000)

#: A tool of another environment that builds one system from what it is given; it always answers the first class.
PEER = """
import numpy as np
from pathlib import Path

def build(job):
    texts, labels = job.rows("train")
    assert len(texts) == len(labels) > 20 and max(labels) < len(job.labels) and job.threads == 1
    assert (Path(job.teacher) / "model.safetensors").exists() and (Path(job.body) / "model.safetensors").exists()
    (Path(job.out) / "fake-one" / "inner").mkdir(parents=True)
    (Path(job.out) / "fake-one" / "inner" / "weights").write_bytes(bytes(1000))
    (Path(job.out) / "fake-one" / "README.md").write_text("a card")
    return {"fake-one": 2.0}

def load(folder, job):
    return lambda texts: np.eye(1, len(job.labels)).repeat(len(texts), 0)
"""


def short_recipe(name: str, source: Path, kind: str = "") -> dict[str, Any]:
    """The board's recipe for a tiny teacher beside the data, one pass over the rows a training; one thread, since two spin while another worker has the core."""
    block = recipe_for(name, source, kind)
    body = source.resolve().parent / "body"
    block["teach"] |= {"source": str(body), "sha256": sha256_of(body / "model.safetensors")}
    block["label"]["hidden_layers"] = [0, 2]
    students: dict[str, dict[str, Any]] = {
        "": {"layers": [0, 2]},
        "-static": {"hidden_size": 24},
        "-front": {
            "layers": [[0, 2], [2]],
            "intermediate_sizes": [32],
            "num_attention_heads": [4],
            "vocabularies": [{"min_count": 1, "keep_first": 0}],
            "whole_epochs": 1,
            "without_layers": None,
        },
    }
    block["distill"]["student"] |= students[kind]
    if kind == "":
        block["prune"]["intermediate_size"] = 32
    if kind == "-front":
        block["explore"] |= {"latency_rounds": 30, "repeats": 0, "bootstrap_samples": 100}
        block["explore"]["quantizations"] = {"int8": block["explore"]["quantizations"]["int8"]}
    block["task"] |= {"threads": 1, "max_length": 32}
    for training in (block["teach"]["training"], block["distill"]["training"], block["prune"]["recovery"]):
        training["epochs"] = 1
    return block


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    rows = [(text, "oos" if label == "login" else label) for text, label in tiny_rows()]
    for name, part in {"train": rows[0::2], "validation": rows[1::4], "test": rows[3::4]}.items():
        write_csv(folder / "tiny" / f"{name}.csv", part)
    tiny_model(folder / "body")
    # Another data set's row, of an earlier run.
    (folder / "rows.json").write_text(json.dumps([OTHER]))
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
        patch.setattr(budgets, "recipe_for", short_recipe)
        patch.setattr(systems, "recipe_for", short_recipe)
        patch.setattr(systems, "SHAPES", ("static",))
        patch.setattr(budgets, "SHARES", SHARES)
        # The board's own settings measure for minutes what is here only looked at for being there.
        patch.setattr(board_program, "LATENCY_ROUNDS", 30)
        patch.setattr(board_program, "THROUGHPUT_SECONDS", 0.1)
        (folder / "peers" / "fake").mkdir(parents=True)
        (folder / "peers" / "fake" / "peer.py").write_text(PEER)
        (folder / "peers" / "fake" / "requirements.txt").write_text("needed==2\ntool==1.5\n")
        patch.setattr(peers, "HERE", folder / "peers")
        patch.setattr(peers, "NAMES", ("fake",))
        patch.setitem(ABOUT, "fake", (("tool",), "always the first class"))
        patch.setattr(board_program, "environment", lambda name, root: Path(sys.executable))
        assert (
            main(
                [
                    "--data",
                    str(folder / "tiny"),
                    "--work",
                    str(folder / "work"),
                    *outputs,
                    "--budgets",
                    "--peers",
                    "fake",
                ]
            )
            == 0
        )
    return folder


def test_one_row_a_system_with_every_figure(board: Path) -> None:
    kept, *rows = json.loads((board / "rows.json").read_text())
    assert kept == OTHER
    assert [row["system"] for row in rows] == SYSTEMS
    for row in rows:
        assert {"data", "accuracy", "bytes", "p50_ms", "texts_per_s", "build_s"} <= set(row)
        assert {"in_scope_accuracy", "out_of_scope_recall"} <= set(row)
        assert 0 <= row["accuracy"] <= 1
        assert min(row["bytes"], row["p50_ms"], row["texts_per_s"], row["build_s"]) > 0
    size = {row["system"]: row["bytes"] for row in rows}
    assert size["factory"] < size["teacher-int8"] < size["teacher-ort"]
    assert size["fake-one"] == 1000
    seconds = {row["system"]: row["build_s"] for row in rows}
    assert seconds["fake-one"] == seconds["teacher-torch"] + 2.0


def test_the_table_and_the_picture_show_all_of_them(board: Path) -> None:
    table, picture = (board / "table.md").read_text(), (board / "b.svg").read_text()
    for system in SYSTEMS:
        assert f"| `{system}` |" in table
    assert "oos recall %" in table
    assert "The front: 2 points of one elastic student measured on validation data in " in table
    assert "No point is 100000 times smaller and faster." in table
    assert "* tool 1.5: always the first class." in table
    assert "Ours is on or above the joint front at " in table
    assert picture.count("<svg") == 1


@pytest.mark.parametrize("name", ["anything", "clinc150_oos"])
@pytest.mark.parametrize("kind", ["", "-front", *(f"-{shape}" for shape in systems.SHAPES)])
def test_the_boards_recipes_are_valid(name: str, kind: str) -> None:
    assert ClassificationRecipe.model_validate(chain.recipe_for(name, ROOT, kind)).task.type == "text-classification"


def test_a_folder_without_test_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["--out", "r", "--table", "t", "--picture", "p", "--work", "w"]
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), *outputs])
    assert "train.csv, validation.csv, test.csv missing" in capsys.readouterr().err


def test_a_peer_that_cannot_be_installed_ends_the_run_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, root: Path) -> Path:
        raise PeerError(f"{name}: `pip` failed; its log: {root}/olive-install.log")

    monkeypatch.setattr(board_program, "environment", refuse)
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").touch()
    outputs = ["--out", "r", "--table", "t", "--picture", "p", "--work", str(tmp_path / "work")]
    assert main(["--data", str(tmp_path), *outputs, "--peers", "olive"]) == PeerError.exit_code
    assert "olive: `pip` failed; its log: " in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
