"""Every classifier's architecture times every technique on tiny random models: label -> distill -> prune -> quantize -> load in slm_registry.

Cells that cannot work stand in tests/families_cells.py with the message that a user sees; every other one must work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slm_registry import TextClassifier
from transformers import AutoModelForSequenceClassification

from pipelines.bundle import read_lineage, sha256_of
from pipelines.data.clean import CleanData, load_clean
from pipelines.errors import ModelError
from pipelines.families.anatomy import ANATOMIES
from pipelines.predictors import exported_predictor, teacher_predictor
from pipelines.stages.distill import distill
from pipelines.stages.label import label
from pipelines.stages.prune import prune
from pipelines.stages.quantize import quantize
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from tests.families_cells import CLASSIFIER_COLUMNS, CLASSIFIER_REASONS, ENCODERS
from tests.recipes import LOSSES, TRAINING, recipe
from tests.tiny import tiny_model, tiny_rows, write_csv

DEPTH_ONLY = {"prune__intermediate_size": None, "prune__num_attention_heads": None, "prune__num_hidden_layers": 1}
STATIC = {
    "technique": "static_int8",
    "per_channel": True,
    "parity": 1e-4,
    "calibrate": "biases",
    "calibration_rows": 24,
}
FLOAT = {"technique": "none", "parity": 1e-4, "calibrate": "none"}

#: Technique cell -> the recipe's changes.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "structured+dynamic_int8": {},
    "activation+static_int8": {"prune__importance": "activation", "quantize": STATIC},
    "depth+float32": DEPTH_ONLY | {"quantize": FLOAT},
    "random student, no pruning": {
        "distill__student": {"kind": "random", "num_hidden_layers": 2},
        "distill__losses": LOSSES,
        "prune": {"technique": "none"},
    },
    "static student, vocabulary": {
        "distill__student": {"kind": "static", "hidden_size": 24},
        "distill__losses": LOSSES,
        "prune__losses": LOSSES,
        "prune__intermediate_size": None,
        "prune__num_attention_heads": None,
        "prune__num_hidden_layers": None,
    },
}

#: Column of the table of families -> the cell that proves it, or the test of its own.
PROOFS = {
    "depth": "depth+float32",
    "FFN width": "structured+dynamic_int8",
    "heads": "structured+dynamic_int8",
    "vocabulary": "structured+dynamic_int8",
    "fresh student": "random student, no pruning",
    "pretrained student": "test_a_smaller_pretrained_student",
    "static student": "static student, vocabulary",
    "float32": "depth+float32",
    "int8": "structured+dynamic_int8",
    "static int8": "activation+static_int8",
}
#: What a recipe asks for that must leave FFN width and heads as they are.
UNCUT = {"prune__intermediate_size": None, "prune__num_attention_heads": None}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    source = write_csv(folder / "tiny.csv", tiny_rows())
    block = recipe()
    validate(str(source), folder / "data", folder / "report", block.task, block.data)
    return folder / "data"


@pytest.fixture(scope="module", params=sorted(ANATOMIES))
def taught(request: pytest.FixtureRequest, clean: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A teacher with its signals, once an architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    body = tiny_model(folder / "body", request.param)
    block = recipe(teach__source=str(body), teach__sha256=sha256_of(body / "model.safetensors"))
    teach(clean, folder / "teacher", folder / "curve.csv", block.task, block.teach, Unkept())
    label(clean, folder / "teacher", folder / "signals", block.task, block.label)
    return request.param, folder


def make(clean: Path, taught: Path, out: Path, changes: dict[str, Any]) -> Path:
    block = recipe(**changes)
    distill(
        clean,
        taught / "signals",
        taught / "teacher",
        out / "student",
        out / "c1.csv",
        block.task,
        block.distill,
        Unkept(),
    )
    prune(
        clean,
        taught / "signals",
        out / "student",
        out,
        out / "pruned",
        out / "c2.csv",
        block.task,
        None,
        block.prune,
        Unkept(),
    )
    quantize(clean, out / "pruned", out / "exported", block.task, block.quantize)
    return out / "exported"


def calibrated(probabilities: np.ndarray, exported: Path) -> np.ndarray:
    """What the pruned model says [N, C], with the temperature and the biases that `quantize` gave it."""
    found = read_lineage(exported)["stages"][-1]["calibration"]
    if not found:
        return probabilities
    biases = list((found["biases"] or {}).values()) or 0.0
    scores = np.exp(np.log(probabilities) / found["temperature"] + biases)
    return scores / scores.sum(1, keepdims=True)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.argmax(1) == other.argmax(1)).mean())


@pytest.mark.parametrize("technique", sorted(TECHNIQUES))
def test_cell(technique: str, taught: tuple[str, Path], clean: Path, tmp_path: Path) -> None:
    kind, folder = taught
    changes = TECHNIQUES[technique]
    reason = CLASSIFIER_REASONS.get((kind, "FFN width"))
    if reason is not None and not changes.keys() & {"prune", *UNCUT}:
        with pytest.raises(ModelError, match=reason):
            make(clean, folder, tmp_path / "refused", changes)
        changes = changes | UNCUT
    exported = make(clean, folder, tmp_path, changes)
    data: CleanData = load_clean(clean)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned")
    probabilities = TextClassifier.from_folder(exported).predict_proba(data.test.texts)
    assert probabilities.shape == (len(data.test.texts), 3)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(probabilities)), abs=1e-4)
    torch_side = calibrated(teacher_predictor(tmp_path / "pruned", 1)(data.test.texts), exported)
    # A model that has learned next to nothing answers near thirds, where rounding alone picks the label.
    undecided = np.abs(torch_side - 1 / 3).max() < 0.01 and np.abs(probabilities - 1 / 3).max() < 0.01
    assert undecided or agreement(probabilities, torch_side) >= (1.0 if "float32" in technique else 0.9)
    assert sorted(path.name for path in exported.iterdir()) == [
        "config.json",
        "lineage.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [entry["stage"] for entry in read_lineage(exported)["stages"]] == ["teach", "distill", "prune", "quantize"]


def test_every_cell_of_the_table_is_proven() -> None:
    assert set(PROOFS) == set(CLASSIFIER_COLUMNS)
    assert set(PROOFS.values()) <= {*TECHNIQUES, *globals()}
    assert set(ANATOMIES) == set(ENCODERS)
    # One message for both: prune.py asks for a layer's units at once.
    assert {kind for kind, column in CLASSIFIER_REASONS if column == "FFN width"} == {
        kind for kind, column in CLASSIFIER_REASONS if column == "heads"
    }


def test_a_smaller_pretrained_student(taught: tuple[str, Path], clean: Path, tmp_path: Path) -> None:
    kind, folder = taught
    body = tiny_model(tmp_path / "smaller", kind, seed=9)
    student = {"kind": "pretrained", "source": str(body), "sha256": sha256_of(body / "model.safetensors")}
    exported = make(
        clean,
        folder,
        tmp_path,
        {"distill__student": student, "distill__losses": LOSSES, "prune": {"technique": "none"}, "quantize": FLOAT},
    )
    data = load_clean(clean)
    assert exported_predictor(exported, 1)(data.test.texts).shape == (len(data.test.texts), 3)


def test_a_wrong_digest_is_refused(clean: Path, tmp_path: Path) -> None:
    body = tiny_model(tmp_path / "body")
    block = recipe(teach__source=str(body))
    with pytest.raises(ModelError, match=r"model\.safetensors: sha256 is [0-9a-f]{64}, the recipe says 0{64}"):
        teach(clean, tmp_path / "teacher", tmp_path / "curve.csv", block.task, block.teach, Unkept())


def test_bf16_trains_too(clean: Path, tmp_path: Path) -> None:
    body = tiny_model(tmp_path / "body")
    block = recipe(
        teach__source=str(body),
        teach__sha256=sha256_of(body / "model.safetensors"),
        teach__training=TRAINING | {"precision": "bf16"},
    )
    teach(clean, tmp_path / "teacher", tmp_path / "curve.csv", block.task, block.teach, Unkept())
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert len(rows) == 9
    assert float(rows[-1].split(",")[2]) < float(rows[1].split(",")[2])
