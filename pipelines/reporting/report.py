"""One HTML file: what was gained, what was lost, and the mistakes worth reading."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Lineage
from pipelines.curves import read_curve
from pipelines.data.clean import CleanData
from pipelines.evaluation import Evaluation
from pipelines.reporting import charts
from pipelines.techniques.metrics import calibration_error

TEMPLATES = Path(__file__).parent / "templates"
CURVES = ("teach", "distill", "prune")
WORST = 25
PAIRS = 15


@dataclass(frozen=True)
class Mistake:
    """A test text that the model got wrong, surest first."""

    text: str
    actual: str
    predicted: str
    confidence: float
    teacher: str


def render(template: str, **values: Any) -> str:
    """Fill one of the project's templates; HTML is escaped, an undefined name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"mb": lambda count: f"{count / 1e6:.2f}", "percent": lambda share: f"{100 * share:.1f}"}
    return environment.get_template(template).render(**values)


def render_report(
    out: Path, result: Evaluation, data: CleanData, lineage: Lineage, curves: Path, front: str | None
) -> None:
    """Write the report; `front` is the front's picture where the model was chosen from one."""
    teacher, model = result.measured["teacher"], result.measured["model"]
    colors = {"teacher": charts.TEACHER, "model": charts.MODEL}
    matrix = confusion(result, len(data.labels))
    html = render(
        "report.html.j2",
        metrics=result.metrics(),
        ece={side: calibration_error(quality.bins) for side, quality in result.quality.items()},
        classes=sorted(
            zip(result.quality["model"].classes, result.quality["teacher"].classes, strict=True),
            key=lambda pair: pair[0].f1,
        ),
        mistakes=worst_mistakes(result, data),
        pairs=confused_pairs(matrix, data.labels),
        lineage=lineage,
        front=front,
        levers=[gain for entry in lineage["stages"] for gain in entry.get("levers", [])],
        size_chart=charts.bars({"teacher": teacher.bytes / 1e6, "model": model.bytes / 1e6}, "MB", colors),
        latency_chart=charts.bars({"teacher": teacher.timing.p50_ms, "model": model.timing.p50_ms}, "ms", colors),
        histogram=charts.latency_histogram({name: side.milliseconds for name, side in result.measured.items()}),
        reliability=charts.reliability_diagram({name: quality.bins for name, quality in result.quality.items()}),
        curves=charts.loss_curves({stage: read_curve(curves / f"{stage}.csv") for stage in CURVES}),
        heatmap=charts.confusion_heatmap(matrix, data.labels),
    )
    out.write_text(html, encoding="utf-8")


def confusion(result: Evaluation, classes: int) -> np.ndarray:
    """Counts [actual, predicted] of the model."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (result.truth, result.measured["model"].probabilities.argmax(axis=1)), 1)
    return matrix


def confused_pairs(matrix: np.ndarray, labels: list[str]) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: actual, predicted, count."""
    counts = Counter(
        {
            (int(row), int(column)): int(matrix[row, column])
            for row, column in zip(*np.nonzero(matrix), strict=True)
            if row != column
        }
    )
    return [(labels[actual], labels[predicted], count) for (actual, predicted), count in counts.most_common(PAIRS)]


def worst_mistakes(result: Evaluation, data: CleanData) -> list[Mistake]:
    """The wrong answers that the model was surest of."""
    probabilities = result.measured["model"].probabilities
    predicted, teacher = probabilities.argmax(axis=1), result.measured["teacher"].probabilities.argmax(axis=1)
    wrong = [
        int(row) for row in np.argsort(-probabilities.max(axis=1), kind="stable") if predicted[row] != result.truth[row]
    ]
    return [
        Mistake(
            data.test.texts[row],
            data.labels[result.truth[row]],
            data.labels[predicted[row]],
            float(probabilities[row].max()),
            data.labels[teacher[row]],
        )
        for row in wrong[:WORST]
    ]
