"""The figures of a build beside its teacher's, as rows of text: whatever of the known measures its metrics file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Number = int | float
Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class Measure:
    """How a figure of metrics.json is shown: its key, words, form and factor, the ratio beside it, the unit of a difference."""

    key: str
    words: str
    form: str
    factor: float = 1.0
    ratio: str = ""
    ratio_words: str = ""
    unit: str = ""


MEASURES = (
    Measure("accuracy", "accuracy, % (95 % interval)", "{:.2f}", 100, unit=" points"),
    Measure("macro_f1", "macro-F1, %", "{:.2f}", 100, unit=" points"),
    Measure("span_f1", "span F1, %", "{:.2f}", 100, unit=" points"),
    Measure("bits_per_byte", "bits a byte (less is better)", "{:.4f}"),
    Measure("chrf", "chrF", "{:.2f}"),
    Measure("ece", "calibration error (ECE)", "{:.3f}"),
    Measure("bytes", "size, MB", "{:.2f}", 1e-6, "size_ratio", "smaller"),
    Measure("p50_ms", "p50, ms at batch 1", "{:.2f}", 1.0, "latency_ratio", "faster"),
    Measure("texts_per_s", "texts a second", "{:.0f}", 1.0, "throughput_ratio", "as many"),
    Measure("first_token_ms", "first token, ms", "{:.2f}", 1.0, "first_token_ratio", "faster"),
    Measure("tokens_per_s", "tokens a second after it", "{:.0f}", 1.0, "tokens_per_s_ratio", "as many"),
)


def result_rows(metrics: Any) -> list[Row]:
    """`measure, teacher, model, comparison` of what the metrics file holds; a missing figure is a dash, never an error."""
    teacher, model, comparison = (_section(metrics, name) for name in ("teacher", "model", "comparison"))
    rows = []
    for measure in MEASURES:
        sides = (_shown(teacher, measure), _shown(model, measure))
        if sides != ("-", "-"):
            rows.append((measure.words, *sides, _ratio(comparison, measure) or _difference(comparison, measure)))
    return rows + _of_students(_section(metrics, "control"), _section(metrics, "student"), comparison)


def _of_students(control: Mapping[str, Any], student: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[Row]:
    """What distillation gave: the same student taught by data alone, and distilled, before pruning and quantizing."""
    rows = []
    for measure in MEASURES:
        gained = _difference(comparison, measure, "control_")
        if gained:
            name = measure.words.split(" (")[0]
            rows.append((f"{name}, student alone", "", _shown(control, measure), ""))
            rows.append((f"{name}, student distilled", "", _shown(student, measure), gained))
    return rows


def _section(metrics: Any, name: str) -> Mapping[str, Any]:
    section = metrics.get(name) if isinstance(metrics, dict) else None
    return section if isinstance(section, dict) else {}


def _shown(side: Mapping[str, Any], measure: Measure) -> str:
    value, low, high = (side.get(measure.key + end) for end in ("", "_low", "_high"))
    if not isinstance(value, Number):
        return "-"
    shown = measure.form.format(value * measure.factor)
    if isinstance(low, Number) and isinstance(high, Number):
        ends = [measure.form.format(end * measure.factor) for end in (low, high)]
        shown += f" ({ends[0]}-{ends[1]})"
    return shown


def _ratio(comparison: Mapping[str, Any], measure: Measure) -> str:
    value = comparison.get(measure.ratio)
    return f"{value:.1f}x {measure.ratio_words}" if isinstance(value, Number) else ""


def _difference(comparison: Mapping[str, Any], measure: Measure, which: str = "") -> str:
    """The difference with its 95 % interval."""
    value, low, high = (comparison.get(f"{which}{measure.key}_difference{end}") for end in ("", "_low", "_high"))
    if not isinstance(value, Number):
        return ""
    form = measure.form.replace(":", ":+")
    shown = form.format(value * measure.factor) + measure.unit
    if isinstance(low, Number) and isinstance(high, Number):
        shown += f" ({form.format(low * measure.factor)} to {form.format(high * measure.factor)})"
    return shown
