"""How good one side of a sequence evaluation is, in the numbers of metrics.json, and the counts that its main metric is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.config import Task
from pipelines.data.clean import Split
from pipelines.families import sequence_family_of
from pipelines.sequences.main_metric import bits_of
from pipelines.sequences.prompts import Asked
from pipelines.sequences.sides.predicting import Predictions
from pipelines.techniques import span_metrics, text_metrics
from pipelines.techniques.metrics import ReliabilityBin, calibration_error, reliability_bins
from pipelines.techniques.writing_speed import Written

BINS = 10
OUTSIDE = "O"


@dataclass(frozen=True)
class Quality:
    """Numbers by key; counts [R, K] of the main metric with the test row that each is of; what was promised and kept."""

    numbers: dict[str, Any]
    counts: np.ndarray
    rows: list[int]
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class Ground:
    """What every side is judged on: the test split, what was asked, and which rows no side had to cut."""

    task: Task
    test: Split
    asked: Asked
    whole: list[int]


def quality_of(ground: Ground, found: Predictions, written: Sequence[Written]) -> Quality:
    """Judge one side."""
    kinds: dict[str, Callable[[Ground, Predictions, Sequence[str]], tuple[dict[str, Any], np.ndarray, list[int]]]] = {
        "text-generation": _continuing,
        "text-to-text": _answering,
        "token-classification": _tagging,
    }
    numbers, counts, rows = kinds[ground.task.type](ground, found, [one.text for one in written])
    bins = reliability_bins(found.confidence, found.likeliest == found.truth, BINS)
    return Quality(numbers | {"ece": calibration_error(bins)}, counts, rows, bins)


def _continuing(
    ground: Ground, found: Predictions, texts: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray, list[int]]:
    counts = _nats_and_bytes(ground, found)
    return _language(found, counts) | _overlap(texts, ground.asked.references), counts, ground.whole


def _answering(
    ground: Ground, found: Predictions, texts: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray, list[int]]:
    numbers = _language(found, _nats_and_bytes(ground, found)) | _overlap(texts, ground.asked.references)
    return numbers, text_metrics.chrf_counts(texts, ground.asked.references), ground.asked.rows


def _tagging(ground: Ground, found: Predictions, texts: Sequence[str]) -> tuple[dict[str, Any], np.ndarray, list[int]]:
    truth, tags = _tags(ground.test, found)
    counts = span_metrics.span_counts(truth, tags)
    score = span_metrics.span_score(counts.sum(axis=0))
    right = sum(
        ours == wanted for row, true in zip(tags, truth, strict=True) for ours, wanted in zip(row, true, strict=True)
    )
    numbers = {
        "accuracy": right / max(sum(map(len, truth)), 1),
        "span_precision": score.precision,
        "span_recall": score.recall,
        "span_f1": score.f1,
        "span_types": {kind: asdict(one) for kind, one in span_metrics.by_type(truth, tags).items()},
    }
    return numbers, counts, list(range(len(truth)))


def _tags(split: Split, found: Predictions) -> tuple[list[list[str]], list[list[str]]]:
    """True tags and told ones. Words beyond the longest length, of which the model says nothing, are in no span."""
    truth = [target.split() for target in split.targets]
    told = found.named(found.likeliest)
    return truth, [row + [OUTSIDE] * (len(true) - len(row)) for row, true in zip(told, truth, strict=True)]


def _nats_and_bytes(ground: Ground, found: Predictions) -> np.ndarray:
    """[R, 2] of the rows that are predicted whole."""
    return _language_counts(ground.task, ground.test, found, ground.whole)


def _language_counts(task: Task, split: Split, found: Predictions, rows: Sequence[int]) -> np.ndarray:
    family = sequence_family_of(task)
    targets = split.targets or [""] * len(split.texts)
    sizes = [family.text_bytes(Split([split.texts[row]], targets=[targets[row]])) for row in rows]
    nats = found.by_row(found.nats)
    return np.array([[nats[row].sum(), size] for row, size in zip(rows, sizes, strict=True)]).reshape(-1, 2)


def counts_of(task: Task, split: Split, found: Predictions) -> np.ndarray:
    """[N, K] of a model that continues texts, or tags them: what its main metric is made of, a row a text."""
    if task.type == "text-generation":
        return _language_counts(task, split, found, range(len(split.texts)))
    return span_metrics.span_counts(*_tags(split, found))


def _language(found: Predictions, counts: np.ndarray) -> dict[str, Any]:
    return {
        "bits_per_byte": bits_of(counts.sum(axis=0)),
        "perplexity": text_metrics.perplexity(float(found.nats.sum()), len(found.nats)),
        "token_accuracy": float(np.mean(found.likeliest == found.truth)),
    }


def _overlap(texts: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Likeness to the references, and how much a text repeats itself; chrF and BLEU between 0 and 100, the others shares."""
    return {
        "exact_match": float(text_metrics.exact_matches(texts, references).mean()),
        "first_line_match": float(text_metrics.first_line_matches(texts, references).mean()),
        **{name: float(values.mean()) for name, values in text_metrics.rouge(texts, references).items()},
        "chrf": text_metrics.chrf(text_metrics.chrf_counts(texts, references).sum(axis=0)),
        "bleu": text_metrics.bleu(texts, references),
        "repetition": text_metrics.repetition(texts),
        "longest_repeat": max(map(text_metrics.longest_repeat, texts), default=0),
    }


def agreement(teacher: Predictions, side: Predictions) -> dict[str, float]:
    """Share of predictions whose likeliest class is the teacher's, over the rows that both cut into the same tokens.

    Empty where there is none; classes are compared by name, since a pruned vocabulary has other numbers.
    """
    both = zip(teacher.named(teacher.truth), side.named(side.truth), strict=True)
    same = [row for row, (theirs, ours) in enumerate(both) if theirs == ours]
    said, told = teacher.named(teacher.likeliest), side.named(side.likeliest)
    total = sum(len(said[row]) for row in same)
    if not total:
        return {}
    hits = sum(one == other for row in same for one, other in zip(said[row], told[row], strict=True))
    return {"agreement": hits / total, "agreement_rows": len(same) / len(said)}
