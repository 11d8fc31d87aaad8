from __future__ import annotations

from pipelines.reporting.charts import loss_curves


def _row(phase: str, loss: float) -> dict[str, str]:
    return {"phase": phase, "validation_loss": str(loss)}


def _labels(svg: str) -> list[str]:
    return [line.split(">")[1].split("<")[0] for line in svg.splitlines() if "<text" in line]


def test_students_of_one_stage_are_lines_of_their_own_side_by_side() -> None:
    """The student taught by data alone is trained beside the distilled one, not after it."""
    students = [_row("distill", 2.0), _row("distill", 1.5), _row("control", 2.1), _row("control", 1.9)]
    curves = {"teach": [_row("teach", 3.0)], "distill": students, "prune": [_row("prune 1/2", 1.8)]}
    labels = _labels(loss_curves(curves, measure="validation_loss"))
    assert {"teach", "distill", "student alone", "prune"} < set(labels)
    assert "4" in labels and "5" not in labels, "epochs on the axis"


def test_a_stage_that_trained_nothing_has_no_line() -> None:
    labels = _labels(loss_curves({"teach": [], "distill": [_row("distill", 1.0)]}, measure="validation_loss"))
    assert "distill" in labels and "teach" not in labels
