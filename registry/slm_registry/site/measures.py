"""Metrics as people read them: which there are, what they are called, how a value is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slm_registry.plumbing.printable import size_text

#: A rate is so many a second; a number has no unit but what its label says.
Kind = Literal["share", "bytes", "ms", "rate", "number"]
Side = Literal["model", "teacher"]
# More than this of a stranger's metrics would be a wall, not a picture.
MAX_MEASURES = 12
_MAX_NAME = 40
_MAX_KNOWN = 1e15
# Beyond these the steps of an axis leave a float's range, or its precision.
_SMALLEST, _LARGEST = 1e-250, 1e300
_BYTES = ("kB", "MB", "GB", "TB")
# From here on an axis has no room for a number written in full.
_PLAIN, _MAX_DIGITS = 1e15, 6


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric: its key in metrics.json, its name in words, its kind, and whether more of it is better."""

    key: str
    label: str
    kind: Kind
    more_is_better: bool | None = None


# What says most comes first: of more than MAX_MEASURES the last are left out.
KNOWN = (
    Measure("span_f1", "Span F1", "share", True),
    Measure("accuracy", "Accuracy", "share", True),
    Measure("macro_f1", "Macro F1", "share", True),
    Measure("bits_per_byte", "Bits per byte", "number", False),
    Measure("chrf", "chrF", "number", True),
    Measure("bytes", "Download size", "bytes", False),
    Measure("p50_ms", "Latency, p50", "ms", False),
    Measure("p95_ms", "Latency, p95", "ms", False),
    Measure("texts_per_s", "Texts per second", "rate", True),
    Measure("first_token_ms", "Time to first token", "ms", False),
    Measure("tokens_per_s", "Tokens per second", "rate", True),
    Measure("perplexity", "Perplexity per token", "number", False),
    Measure("exact_match", "Exact match", "share", True),
    Measure("rouge_l", "ROUGE-L", "share", True),
    Measure("bleu", "BLEU", "number", True),
    Measure("ece", "Calibration error", "share", False),
    Measure("peak_memory_bytes", "Peak memory", "bytes", False),
    Measure("energy_j_per_1000", "Energy, J per 1,000 texts", "number", False),
    Measure("energy_j_per_token", "Energy, J per token", "number", False),
    Measure("agreement", "Agreement with the base model", "share", True),
    Measure("token_accuracy", "Next token right", "share", True),
    Measure("first_line_match", "First line exact", "share", True),
    Measure("rouge_1", "ROUGE-1", "share", True),
    Measure("rouge_2", "ROUGE-2", "share", True),
    Measure("repetition", "Repeated runs of 4 words", "share", False),
    Measure("longest_repeat", "Longest repeat, words", "number", False),
    Measure("span_precision", "Span precision", "share", True),
    Measure("span_recall", "Span recall", "share", True),
)
# What a model is judged by where its metrics do not say.
_QUALITY = ("span_f1", "accuracy", "macro_f1", "bits_per_byte", "chrf")
_BOUNDS = ("_low", "_high")


def side(metrics: Mapping[str, Any], which: Side) -> dict[str, float]:
    """The numbers that were measured on the model or its teacher and can be true; flat metrics are the model's."""
    found = metrics.get(which)
    if not isinstance(found, Mapping):
        found = metrics if which == "model" else {}
    return {key: float(value) for key, value in found.items() if _is_number(value) and _plausible(key, value)}


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value == 0 or _SMALLEST < abs(value) < _LARGEST


def _plausible(key: str, value: float) -> bool:
    """Whether a known measure, or a bound of one, can have this value: a share above 1 would bend every plot."""
    for end in _BOUNDS:
        key = key.removesuffix(end)
    kinds = {measure.key: measure.kind for measure in KNOWN}
    least = 1 if kinds.get(key) == "bytes" else 0
    return key not in kinds or least <= value <= (1 if kinds[key] == "share" else _MAX_KNOWN)


def present(numbers: Iterable[Mapping[str, float]]) -> tuple[Measure, ...]:
    """The measures that occur, the known ones first, others by name; bounds of an interval are no measure."""
    keys = {key for found in numbers for key in found}
    known = [measure for measure in KNOWN if measure.key in keys]
    named = {measure.key for measure in KNOWN}
    others = sorted(
        key for key in keys - named if not (key.endswith(_BOUNDS) and key.rpartition("_")[0] in keys) and key
    )
    rest = [Measure(key, key[:_MAX_NAME].replace("_", " "), "number") for key in others]
    return tuple([*known, *rest][:MAX_MEASURES])


def quality(measures: Iterable[Measure], main: str) -> Measure | None:
    """The measure that says how good a model is: `main`, the one that its metrics name, else a usual one, else the first of
    unknown meaning."""
    found = list(measures)
    named = [measure for measure in found if measure.key == main]
    usual = [measure for measure in found if measure.key in _QUALITY or measure.more_is_better is None]
    return next(iter(named or usual), None)


def main_of(metrics: Mapping[str, Any]) -> str:
    """The key of the measure that the metrics name as the one to judge by; "" where they name none."""
    run = metrics.get("run")
    named = run.get("main_metric") if isinstance(run, Mapping) else None
    return named if isinstance(named, str) else ""


def written(kind: Kind, value: float) -> str:
    """A value with its unit."""
    if kind == "share":
        return f"{value * 100:.2f} %"
    if kind == "bytes":
        return size_text(round(value))
    number = _digits(value)
    return f"{number} ms" if kind == "ms" else number


def with_interval(measure: Measure, numbers: Mapping[str, float]) -> str:
    """A measure's value, with its interval in brackets where both bounds are known; "" where it was not measured."""
    if measure.key not in numbers:
        return ""
    text = written(measure.kind, numbers[measure.key])
    bounds = [numbers[measure.key + end] for end in _BOUNDS if measure.key + end in numbers]
    return f"{text} ({' to '.join(written(measure.kind, bound) for bound in bounds)})" if len(bounds) == 2 else text


def on_axis(kind: Kind, values: Sequence[float]) -> tuple[str, ...]:
    """The round values of an axis, with no digit too many and none too few: 2.05 kB and 2.1 kB, not 2.1 kB twice."""
    largest = max((abs(value) for value in values), default=0.0)
    factor, unit = {"share": (100.0, " %"), "ms": (1.0, " ms"), "bytes": (1.0, " B")}.get(kind, (1.0, ""))
    if kind == "bytes" and largest >= 1000:
        step = min(int(math.log10(largest) / 3), len(_BYTES))
        factor, unit = 1000.0**-step, f" {_BYTES[step - 1]}"
    shown = [value * factor for value in values]
    for digits in range(_MAX_DIGITS):
        if largest < _PLAIN and all(math.isclose(round(at, digits), at, rel_tol=1e-9, abs_tol=1e-12) for at in shown):
            return tuple(f"{at:,.{digits}f}{unit}" for at in shown)
    return tuple(written(kind, value) for value in values)


def _digits(value: float) -> str:
    """Three significant digits, more only where the whole part has them."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"
    return f"{value:.3g}"
