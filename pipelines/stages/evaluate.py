"""Stage `evaluate`: teacher and exported file side by side on test data, once; the report, the model card, the complete bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.bundle import extend_lineage, read_lineage, write_json
from pipelines.config import Evaluate, Task
from pipelines.data.clean import load_clean
from pipelines.evaluation import Evaluation, Side, compare, measure, plot_data
from pipelines.predictors import exported_predictor, teacher_predictor
from pipelines.reporting.card import write_documents
from pipelines.reporting.report import render_report
from pipelines.stages import Output


def evaluate(
    clean: Path,
    teacher: Path,
    exported: Path,
    curves: Path,
    bundle: Output,
    evaluation: Output,
    task: Task,
    evaluate: Evaluate,
) -> None:
    """Write the measurements, DVC's plot data, the report, and the bundle with its model card, metrics and lineage."""
    data = load_clean(clean)
    sides = (Side("teacher", teacher, teacher_predictor), Side("model", exported, exported_predictor))
    result: Evaluation = compare(measure(sides, data, evaluate), data, evaluate, task.seed)
    evaluation.mkdir(parents=True)
    shutil.copytree(exported, bundle)
    lineage = extend_lineage(read_lineage(exported), "evaluate", {"params": evaluate.model_dump()})
    write_documents(bundle, result, data, lineage, task)
    write_json(evaluation / "metrics.json", result.metrics())
    plot_data(result, data, evaluation)
    render_report(evaluation / "report.html", result, data, lineage, curves)
