"""The measures of a sequence evaluation as rows of a table: the same in the report and on the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: A side's key in metrics.json and what a reader calls it, in the order of the columns.
SIDE_NAMES = {
    "teacher": "teacher",
    "control": "student alone",
    "student": "student distilled",
    "model": "this model",
}

#: Key, name in words, and form of each measure, in the order of the rows.
MEASURES = (
    ("bits_per_byte", "bits a byte", "%.4f"),
    ("perplexity", "perplexity a token", "%.3f"),
    ("token_accuracy", "next token right", "%.4f"),
    ("accuracy", "tags right", "%.4f"),
    ("span_f1", "span F1", "%.4f"),
    ("span_precision", "span precision", "%.4f"),
    ("span_recall", "span recall", "%.4f"),
    ("agreement", "likeliest is the teacher's", "%.4f"),
    ("ece", "calibration error (ECE)", "%.4f"),
    ("exact_match", "written exactly", "%.4f"),
    ("first_line_match", "first line exactly", "%.4f"),
    ("chrf", "chrF", "%.2f"),
    ("bleu", "BLEU", "%.2f"),
    ("rouge_1", "ROUGE-1", "%.4f"),
    ("rouge_2", "ROUGE-2", "%.4f"),
    ("rouge_l", "ROUGE-L", "%.4f"),
    ("repetition", "repeated runs of 4 words", "%.4f"),
    ("longest_repeat", "longest repeat, words", "%d"),
    ("first_token_ms", "first token, ms", "%.3f"),
    ("tokens_per_s", "tokens/s after it", "%.1f"),
    ("p50_ms", "p50 ms, batch 1", "%.3f"),
    ("p95_ms", "p95 ms, batch 1", "%.3f"),
    ("energy_j_per_token", "energy, J a token (estimate)", "%.4f"),
    ("energy_j_per_1000", "energy, J a 1000 texts (estimate)", "%.2f"),
    ("bytes", "download, bytes", "%d"),
    ("peak_memory_bytes", "peak memory of a process, bytes", "%d"),
)


@dataclass(frozen=True)
class TableRow:
    """One measure of every side, written out; a dash where a side has none."""

    name: str
    values: list[str]


def sides_of(metrics: dict[str, Any]) -> list[str]:
    """The sides that were measured, in the order of SIDE_NAMES."""
    return [side for side in SIDE_NAMES if side in metrics]


def measure_table(metrics: dict[str, Any]) -> list[TableRow]:
    """The measures that any side has."""
    sides = sides_of(metrics)
    return [
        TableRow(name, _written([metrics[side].get(key) for side in sides], form))
        for key, name, form in MEASURES
        if any(key in metrics[side] for side in sides)
    ]


def _written(values: Sequence[float | None], form: str) -> list[str]:
    return ["-" if value is None else form % value for value in values]
