"""Stage `evaluate`: teacher and exported file side by side on test data, once; the report, the model card, the complete bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from slm_registry.runtime.text_classification import TextClassifier

from pipelines.bundle import Lineage, extend_lineage, read_lineage, write_json
from pipelines.config import Evaluate, Task, TokenEvaluate
from pipelines.data.clean import CleanData, load_clean
from pipelines.drift import Sample, sample_of, write_reference
from pipelines.evaluation import Evaluation, Side, compare, measure, plot_data
from pipelines.exploring.front import chart_of
from pipelines.predictors import exported_predictor, teacher_predictor
from pipelines.reporting.card import write_documents
from pipelines.reporting.report import render_report
from pipelines.reporting.sequence_card import write_sequence_documents
from pipelines.reporting.sequence_report import render_sequence_report
from pipelines.sequences.evaluation import evaluate_sequences, folders_of, plot_sequence_data
from pipelines.stages import Output


def evaluate(
    clean: Path,
    teacher: Path,
    student: Path,
    exported: Path,
    front: Path,
    curves: Path,
    bundle: Output,
    evaluation: Output,
    task: Task,
    evaluate: Evaluate | TokenEvaluate,
) -> None:
    """Write the measurements, DVC's plot data, the report, and the bundle with its model card, metrics and lineage.

    Of the student's folder only what was trained without a teacher is read, and itself beside that, where the recipe asks for both.
    """
    if isinstance(evaluate, TokenEvaluate):
        folders = folders_of(teacher, student, exported)
        _sequences(clean, folders, front, curves, bundle, evaluation, task, evaluate)
    else:
        _classifier(clean, teacher, exported, front, curves, bundle, evaluation, task, evaluate)


def _classifier(
    clean: Path,
    teacher: Path,
    exported: Path,
    front: Path,
    curves: Path,
    bundle: Path,
    evaluation: Path,
    task: Task,
    settings: Evaluate,
) -> None:
    data = load_clean(clean)
    sides = (Side("teacher", teacher, teacher_predictor), Side("model", exported, exported_predictor))
    result: Evaluation = compare(measure(sides, data, settings), data, settings, task.seed)
    lineage = _begin(exported, bundle, evaluation, settings)
    write_documents(bundle, result, data, lineage, task)
    write_reference(bundle, _seen(exported, data, result.measured["model"].probabilities))
    write_json(evaluation / "metrics.json", result.metrics())
    plot_data(result, data, evaluation)
    render_report(evaluation / "report.html", result, data, lineage, curves, chart_of(front, lineage, task))


def _sequences(
    clean: Path,
    folders: dict[str, Path],
    front: Path,
    curves: Path,
    bundle: Path,
    evaluation: Path,
    task: Task,
    settings: TokenEvaluate,
) -> None:
    data = load_clean(clean)
    result = evaluate_sequences(folders, data, task, settings)
    lineage = _begin(folders["model"], bundle, evaluation, settings)
    write_sequence_documents(bundle, result, data, lineage)
    write_json(evaluation / "metrics.json", result.metrics())
    plot_sequence_data(result, evaluation)
    render_sequence_report(evaluation / "report.html", result, lineage, curves, chart_of(front, lineage, task))


def _seen(exported: Path, data: CleanData, probabilities: np.ndarray) -> Sample:
    """What the exported model read and answered on the test rows, as the server that runs it would log it."""
    pieces = TextClassifier.from_folder(exported).pieces(data.test.texts)
    return sample_of(
        [
            {
                "length": len(text),
                "words": len(text.split()),
                "pieces": count,
                "probability": row.max(),
                "label": data.labels[row.argmax()],
            }
            for text, count, row in zip(data.test.texts, pieces, probabilities, strict=True)
        ]
    )


def _begin(exported: Path, bundle: Path, evaluation: Path, settings: Evaluate | TokenEvaluate) -> Lineage:
    """Begin both outputs; the lineage with this stage in it."""
    evaluation.mkdir(parents=True)
    shutil.copytree(exported, bundle)
    return extend_lineage(read_lineage(exported), "evaluate", {"params": settings.model_dump()})
