"""Quality of tagged spans: a span counts where its type and both its ends are right (seqeval; Tjong Kim Sang & De Meulder 2003)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: A span: its type, its first and its last word.
Span = tuple[str, int, int]


@dataclass(frozen=True)
class SpanScore:
    """Precision, recall and F1 of one type of span; `spans` are the true ones."""

    precision: float
    recall: float
    f1: float
    spans: int


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans that BIO-like tags (B-PER I-PER O) mark, read as conlleval reads them."""
    from seqeval.metrics.sequence_labeling import get_entities

    return [(str(kind), int(first), int(last)) for kind, first, last in get_entities(list(tags))]


def span_counts(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> np.ndarray:
    """Spans that are right, predicted and true, a row: [N, 3]. Rows add up."""
    rows = [
        (len(wanted & found), len(found), len(wanted))
        for wanted, found in (
            (set(spans_of(ours)), set(spans_of(theirs))) for ours, theirs in zip(truth, predicted, strict=True)
        )
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def span_f1(counts: np.ndarray) -> float:
    """F1 of counts [3]; 0.0 where nothing is true and nothing predicted, as seqeval has it."""
    right, predicted, true = counts
    return float(2 * right / (predicted + true)) if predicted + true else 0.0


def span_score(counts: np.ndarray) -> SpanScore:
    """Precision, recall and F1 of counts [3]."""
    right, predicted, true = counts
    return SpanScore(
        float(right / predicted) if predicted else 0.0, float(right / true) if true else 0.0, span_f1(counts), int(true)
    )


def by_type(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, SpanScore]:
    """The score of each type of span that is true or predicted anywhere, by name."""
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for ours, theirs in zip(truth, predicted, strict=True):
        true, guessed = set(spans_of(ours)), set(spans_of(theirs))
        right.update(kind for kind, _, _ in true & guessed)
        found.update(kind for kind, _, _ in guessed)
        wanted.update(kind for kind, _, _ in true)
    kinds = sorted(set(found) | set(wanted))
    return {kind: span_score(np.array([right[kind], found[kind], wanted[kind]], dtype=np.float64)) for kind in kinds}


def told_spans(text: str, tags: Sequence[str]) -> str:
    """The spans of a tagged text: `PER: Anna Meier; LOC: Bonn`. Words beyond the tags are in none."""
    words = text.split()
    return told((kind, " ".join(words[first : last + 1])) for kind, first, last in spans_of(tags))


def told(spans: Iterable[tuple[str, str]]) -> str:
    """Spans of (kind, text)."""
    return "; ".join(f"{kind}: {text}" for kind, text in spans)
