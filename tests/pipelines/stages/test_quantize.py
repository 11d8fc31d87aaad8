"""What `quantize` folds into a classifier's head: the file answers as the pruned model does with the calibration that the lineage tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.bundle import read_lineage, sha256_of
from pipelines.config import Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of, load_bundle
from pipelines.predictors import exported_predictor, teacher_predictor
from pipelines.stages.quantize import quantize
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from tests.recipes import recipe
from tests.tiny import tiny_model, tiny_rows, write_csv

FLOAT32 = {"technique": "none", "parity": 1e-4}


@pytest.fixture(scope="module")
def shy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Task]:
    """Clean data and a model that knows all classes, but is slow to say `refund`: its head's bias was lowered."""
    folder = tmp_path_factory.mktemp("shy")
    body = tiny_model(folder / "body")
    block = recipe(
        teach__source=str(body),
        teach__sha256=sha256_of(body / "model.safetensors"),
        data__splits={"kind": "made", "file": None, "validation": 0.5, "test": 0.1},
    )
    source = str(write_csv(folder / "tiny.csv", tiny_rows()))
    validate(source, folder / "data", folder / "report", block.task, block.data)
    teach(folder / "data", folder / "teacher", folder / "t.csv", block.task, block.teach, Unkept())
    bundle = load_bundle(folder / "teacher", block.task)
    biases = torch.zeros(3, dtype=torch.float64)
    biases[load_clean(folder / "data").labels.index("refund")] = -3.0
    family_of(block.task).calibrate(bundle.model, 1.0, biases)
    bundle.model.save_pretrained(folder / "teacher")
    return folder / "data", folder / "teacher", block.task


def exported(shy: tuple[Path, Path, Task], out: Path, calibrate: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The lineage's entry, and what the model said of validation before and says after."""
    clean, pruned, task = shy
    quantize(clean, pruned, out, task, recipe(quantize={**FLOAT32, "calibrate": calibrate}).quantize)
    texts = load_clean(clean).validation.texts
    before, after = teacher_predictor(pruned, 1)(texts), exported_predictor(out, 1)(texts)
    return read_lineage(out)["stages"][-1]["calibration"], before, after


def right(data: CleanData, answers: np.ndarray) -> float:
    return float((answers.argmax(1) == data.validation.labels).mean())


def test_none_leaves_the_answers_as_they_are(shy: tuple[Path, Path, Task], tmp_path: Path) -> None:
    found, before, after = exported(shy, tmp_path / "out", "none")
    assert found == {} and after == pytest.approx(before, abs=1e-4)


def test_a_temperature_changes_how_sure_answers_are_and_no_answer(shy: tuple[Path, Path, Task], tmp_path: Path) -> None:
    found, before, after = exported(shy, tmp_path / "out", "temperature")
    assert found["biases"] is None and found["ridge"] is None and abs(found["temperature"] - 1) > 0.01
    wanted = before ** (1 / found["temperature"])
    assert after == pytest.approx(wanted / wanted.sum(1, keepdims=True), abs=1e-3)


def test_biases_bring_back_the_class_that_was_answered_too_seldom(shy: tuple[Path, Path, Task], tmp_path: Path) -> None:
    found, before, after = exported(shy, tmp_path / "out", "biases")
    data = load_clean(shy[0])
    assert list(found["biases"]) == list(data.labels) and found["ridge"] is not None
    assert max(found["biases"], key=found["biases"].get) == "refund"
    assert right(data, after) > right(data, before)
    wanted = before ** (1 / found["temperature"]) * np.exp(list(found["biases"].values()))
    assert after == pytest.approx(wanted / wanted.sum(1, keepdims=True), abs=1e-3)
