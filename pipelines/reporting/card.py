"""The documents of a finished bundle: README.md (the model card), metrics.json, lineage.json."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.bundle import LINEAGE, Lineage, write_json
from pipelines.config import Task
from pipelines.data.clean import CleanData
from pipelines.evaluation import Evaluation
from pipelines.reporting.report import render

#: Libraries whose version may change the bytes or the numbers.
LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "great-expectations",
    "dvc",
)


def write_documents(bundle: Path, result: Evaluation, data: CleanData, lineage: Lineage, task: Task) -> None:
    """Write the card, the metrics and the lineage, with the environment, into a bundle."""
    metrics = result.metrics()
    told = {"labels": data.labels, "lineage": lineage, "task": task, "rows": rows_of(data)}
    card = render("card.md.j2", metrics=metrics, biased=_biased(lineage), **told)
    write_card(bundle, card, metrics, lineage)


def _biased(lineage: Lineage) -> bool:
    """Whether `quantize` fitted biases that the teacher does not have."""
    return any(stage.get("calibration", {}).get("ridge") is not None for stage in lineage["stages"])


def write_card(bundle: Path, card: str, metrics: dict[str, Any], lineage: Lineage) -> None:
    """Write the three documents."""
    (bundle / "README.md").write_text(card, encoding="utf-8")
    write_json(bundle / "metrics.json", metrics)
    write_json(bundle / LINEAGE, lineage | {"environment": environment()})


def environment() -> dict[str, str]:
    """Interpreter, processor family and the versions that matter; no host name, no path."""
    return {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()} | {
        name: version(name) for name in LIBRARIES
    }


def rows_of(data: CleanData) -> dict[str, int]:
    """Rows of the clean set by split."""
    return {name: len(getattr(data, name).texts) for name in ("train", "validation", "test")} | {
        "unlabelled": len(data.unlabelled)
    }
