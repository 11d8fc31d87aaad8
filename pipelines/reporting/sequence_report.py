"""One HTML file of a sequence evaluation: what was gained, what was lost, and what each side wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Lineage
from pipelines.curves import read_curve
from pipelines.reporting import charts
from pipelines.reporting.report import CURVES, render
from pipelines.reporting.sequence_tables import SIDE_NAMES, measure_table, sides_of
from pipelines.sequences.evaluation import SequenceEvaluation
from pipelines.sequences.main_metric import MAIN, MainMetric

COLORS = {
    SIDE_NAMES["teacher"]: charts.TEACHER,
    SIDE_NAMES["control"]: charts.CONTROL,
    SIDE_NAMES["student"]: charts.STUDENT,
    SIDE_NAMES["model"]: charts.MODEL,
}
#: Rows shown of what was written, and of the best and of the worst; characters shown of a test text.
SHOWN, EXTREMES, EXCERPT = 12, 8, 400


@dataclass(frozen=True)
class WrittenRow:
    """A prompt, what truly follows, and what each side wrote."""

    prompt: str
    reference: str
    answers: list[str]


@dataclass(frozen=True)
class RowValue:
    """A test row and the main metric on it alone: the model's and the teacher's."""

    text: str
    model: float
    teacher: float


def render_sequence_report(
    out: Path, result: SequenceEvaluation, lineage: Lineage, curves: Path, front: str | None
) -> None:
    """Write the report; `front` is the front's picture where the model was chosen from one."""
    metrics, main = result.metrics(), MAIN[result.ground.task.type]
    sides = sides_of(metrics)
    best, worst = extremes(result, main)
    html = render(
        "sequence_report.html.j2",
        metrics=metrics,
        main=main,
        sides=[SIDE_NAMES[side] for side in sides],
        table=measure_table(metrics),
        written=written_rows(result, sides),
        best=best,
        worst=worst,
        types=metrics["model"].get("span_types", {}),
        teacher_types=metrics["teacher"].get("span_types", {}),
        charts=_charts(metrics, main),
        reliability=charts.reliability_diagram(
            {name: result.sides[name].quality.bins for name in ("teacher", "model")}
        ),
        curves=charts.loss_curves(
            {stage: read_curve(curves / f"{stage}.csv") for stage in CURVES}, measure="validation_loss"
        ),
        front=front,
        lineage=lineage,
    )
    out.write_text(html, encoding="utf-8")


def _charts(metrics: dict[str, Any], main: MainMetric) -> list[tuple[str, str]]:
    """(SVG, caption) of each measure that is worth a look beside its teacher's."""
    megabyte = 1e-6
    wanted = (
        (main.key, "", 1.0, f"{main.words}, {'more' if main.more_is_better else 'less'} is better"),
        ("bytes", "MB", megabyte, "Download"),
        ("peak_memory_bytes", "MB", megabyte, "Peak memory of a process"),
        ("first_token_ms", "ms", 1.0, "First token, median"),
        ("tokens_per_s", "tokens/s", 1.0, "Tokens a second after it, median"),
        ("p50_ms", "ms", 1.0, "Median latency"),
    )
    found = []
    for key, unit, factor, caption in wanted:
        values = {
            SIDE_NAMES[side]: metrics[side][key] * factor
            for side in sides_of(metrics)
            if metrics[side].get(key) is not None
        }
        if values:
            form = "%.0f" if max(values.values()) >= 1000 else "%.3g"
            found.append((charts.bars(values, unit, COLORS, form), caption))
    return found


def written_rows(result: SequenceEvaluation, sides: list[str]) -> list[WrittenRow]:
    """The first rows that were asked, evenly spread over the test split."""
    asked = result.ground.asked
    return [
        WrittenRow(
            asked.prompts[at],
            asked.references[at],
            [result.sides[side].written[at].text for side in sides],
        )
        for at in range(min(SHOWN, len(asked.prompts)))
    ]


def extremes(result: SequenceEvaluation, main: MainMetric) -> tuple[list[RowValue], list[RowValue]]:
    """The model's best and its worst rows; a row without anything to judge is in neither."""
    model, teacher = result.sides["model"].quality, result.sides["teacher"].quality
    values = np.array([main.value(row) for row in model.counts], dtype=np.float64)
    told = np.array([row.sum() > 0 for row in model.counts], dtype=bool) & np.isfinite(values)
    order = [int(at) for at in np.argsort(-values if main.more_is_better else values, kind="stable") if told[at]]
    few = min(EXTREMES, len(order) // 2)

    def row(at: int) -> RowValue:
        text = result.ground.test.texts[model.rows[at]]
        return RowValue(text[:EXCERPT], float(values[at]), main.value(teacher.counts[at]))

    return [row(at) for at in order[:few]], [row(at) for at in order[len(order) - few :][::-1]]
