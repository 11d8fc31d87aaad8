from __future__ import annotations

import pytest
from seqeval.metrics import f1_score, precision_score, recall_score

from pipelines.techniques.span_metrics import by_type, span_counts, span_f1, span_score

TRUTH = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG"], ["O", "O"]]
GUESS = [["B-PER", "O", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"], ["O", "B-PER"]]


def test_a_span_counts_where_type_and_both_ends_are_right() -> None:
    """True: PER 0-1, LOC 3, ORG 1-2. Guessed: PER 0, LOC 3, LOC 1-2, PER 1. One is right."""
    counts = span_counts(TRUTH, GUESS)
    assert counts.tolist() == [[1, 2, 2], [0, 1, 1], [0, 1, 0]]
    assert span_f1(counts.sum(axis=0)) == pytest.approx(2 * 1 / (4 + 3))


def test_summed_rows_are_seqevals_corpus() -> None:
    score = span_score(span_counts(TRUTH, GUESS).sum(axis=0))
    assert score.precision == pytest.approx(precision_score(TRUTH, GUESS))
    assert score.recall == pytest.approx(recall_score(TRUTH, GUESS))
    assert score.f1 == pytest.approx(f1_score(TRUTH, GUESS))
    assert score.spans == 3


def test_each_type_has_its_own_score() -> None:
    scores = by_type(TRUTH, GUESS)
    assert list(scores) == ["LOC", "ORG", "PER"]
    assert (scores["LOC"].precision, scores["LOC"].recall, scores["LOC"].spans) == (0.5, 1.0, 1)
    assert (scores["ORG"].f1, scores["ORG"].spans) == (0.0, 1)
    assert scores["PER"].f1 == 0.0


def test_without_spans_the_f1_is_zero_as_seqeval_has_it() -> None:
    assert span_f1(span_counts([["O"]], [["O"]]).sum(axis=0)) == 0.0
