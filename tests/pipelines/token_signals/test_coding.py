from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ModelError
from pipelines.token_signals import Rows, SampledRows, TopKRows
from pipelines.token_signals.coding import (
    DEPTH_ERROR,
    PROBABILITY_ERROR,
    Coding,
    coding_of,
    pack_ids,
    unpack_ids,
)
from pipelines.token_signals.rows import FLOOR
from tests.token_examples import sampled_rows


def there_and_back(coding: Coding, rows: Rows) -> Rows:
    assert coding.problem(rows) is None
    packed = coding.pack(rows)
    return coding.unpack(*(np.frombuffer(column, np.uint8) for column in (packed.heads, packed.ids, packed.codes)))


def rows_of(probabilities: list[float], tail: float) -> TopKRows:
    """One prediction: shares of what the tail leaves, made descending."""
    shares = np.sort(np.array(probabilities))[::-1] / sum(probabilities) * (1 - tail)
    ids = np.arange(len(shares))[None]
    log_tail = np.array([max(math.log(tail), FLOOR)], np.float32)
    return TopKRows(ids, np.log(shares)[None].astype(np.float32), log_tail)


DEPTHS = st.lists(st.floats(0, 20), min_size=1, max_size=255)
TAILS = st.floats(-18, 6).map(lambda odds: 1 / (1 + math.exp(-odds)))


@given(depths=DEPTHS, tail=TAILS)
@settings(max_examples=300, deadline=None)
def test_a_probability_comes_back_within_the_stated_bound(depths: list[float], tail: float) -> None:
    given_rows = rows_of([math.exp(-depth) for depth in depths], tail)
    read = there_and_back(coding_of("top_k", len(depths), 300), given_rows)
    assert isinstance(read, TopKRows)
    assert np.abs(np.exp(read.log_probs) - np.exp(given_rows.log_probs)).max() <= PROBABILITY_ERROR
    depth = given_rows.log_probs - given_rows.log_probs[:, :1]
    assert np.abs(read.log_probs - read.log_probs[:, :1] - np.maximum(depth, FLOOR)).max() <= DEPTH_ERROR
    assert np.exp(read.log_tail[0]) == pytest.approx(tail, rel=0.02, abs=2e-7)
    assert np.exp(read.log_probs.astype(np.float64)).sum() + np.exp(read.log_tail[0]) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("k", [8, 64, 255])
def test_the_bound_is_no_wider_than_the_worst_row_needs(k: int) -> None:
    """All entries at one depth, each rounded the same way, is the worst there is."""
    errors = []
    for depth in np.linspace(0, 10, 2000):
        row = rows_of([1.0] + [math.exp(-depth)] * (k - 1), 1e-9)
        read = there_and_back(coding_of("top_k", k, 300), row)
        assert isinstance(read, TopKRows)
        errors.append(np.abs(np.exp(read.log_probs) - np.exp(row.log_probs)).max())
    assert 0.5 * PROBABILITY_ERROR < max(errors) <= PROBABILITY_ERROR


def test_order_survives_and_equal_entries_stay_equal() -> None:
    row = rows_of([0.5, 0.2, 0.2, 0.05, 0.0001], 0.04)
    read = there_and_back(coding_of("top_k", 5, 6), row)
    assert isinstance(read, TopKRows)
    assert (np.diff(read.log_probs) <= 0).all()
    assert read.log_probs[0, 1] == read.log_probs[0, 2]
    assert read.log_probs.dtype == np.float32 and read.ids.dtype == np.int64


def test_a_token_that_cannot_be_is_as_good_as_impossible() -> None:
    row = TopKRows.of(np.array([[3, 1]]), np.array([[0.0, -np.inf]]))
    read = there_and_back(coding_of("top_k", 2, 5), row)
    assert isinstance(read, TopKRows)
    assert np.exp(read.log_probs[0]) == pytest.approx([1, 0], abs=3e-7)


@given(
    seed=st.integers(0, 999),
    n=st.integers(0, 5),
    k=st.integers(1, 255),
    vocabulary=st.sampled_from([1, 300, 65_536, 65_537, 1 << 24]),
)
@settings(max_examples=100, deadline=None)
def test_draws_come_back_as_they_were(seed: int, n: int, k: int, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    low = 0 if rng.random() < 0.5 else max(0, vocabulary - 9)
    given_rows = sampled_rows(rng.integers(low, vocabulary, (n, k)))
    read = there_and_back(coding_of("sampled", k, vocabulary), given_rows)
    assert isinstance(read, SampledRows)
    width = read.ids.shape[1]
    assert width == (given_rows.counts > 0).sum(-1).max(initial=0)
    assert np.array_equal(read.ids, given_rows.ids[:, :width])
    assert np.array_equal(read.counts, given_rows.counts[:, :width])


@given(vocabulary=st.sampled_from([2, 65_536, 65_537, 1 << 24]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_ids_come_back_as_they_were(vocabulary: int, data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, vocabulary - 1), max_size=20)), dtype=np.int64)
    raw = np.frombuffer(pack_ids(ids, vocabulary), np.uint8)
    assert len(raw) == len(ids) * (2 if vocabulary <= 65_536 else 3)
    assert np.array_equal(unpack_ids(raw, vocabulary), ids)


GOOD = np.log(np.array([[0.6, 0.3], [0.5, 0.4]]))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (TopKRows.of(np.array([[0, 1], [2, 5]]), GOOD), "id 5 stands outside the vocabulary of 5"),
        (TopKRows.of(np.array([[0, -1], [2, 3]]), GOOD), "id -1 stands outside"),
        (TopKRows.of(np.array([[0, 1], [2, 3]]), GOOD[:, ::-1]), "not numbers in descending order"),
        (TopKRows.of(np.array([[0, 1], [2, 3]]), GOOD * np.nan), "not numbers in descending order"),
        (TopKRows.of(np.array([[0, 1], [2, 3]]), GOOD + 1), "add up to 2.446, not to 1"),
        (TopKRows.of(np.array([[0], [2]]), GOOD[:, :1]), "not 2 ids and log-probabilities"),
        (SampledRows(np.array([[0, 1]]), np.array([[1, 1]])), "not 2 ids and log-probabilities"),
    ],
)
def test_a_top_k_that_cannot_be_stored_says_why(rows: Rows, problem: str) -> None:
    assert re.search(problem, coding_of("top_k", 2, 5).problem(rows) or "")


@pytest.mark.parametrize(
    ("ids", "counts", "problem"),
    [
        ([[0, 1]], [[1, 2]], "do not add up to 2 draws"),
        ([[0, 1]], [[3, -1]], "do not add up to 2 draws"),
        ([[0, 9]], [[1, 1]], "id 9 stands outside the vocabulary of 5"),
        ([[0]], [[1, 1]], "not ids and counts"),
    ],
)
def test_draws_that_cannot_be_stored_say_why(ids: list[list[int]], counts: list[list[int]], problem: str) -> None:
    rows = SampledRows(np.array(ids), np.array(counts))
    assert re.search(problem, coding_of("sampled", 2, 5).problem(rows) or "")


@pytest.mark.parametrize(
    ("kind", "k", "vocabulary", "message"),
    [
        ("top_k", 0, 9, "1 to 255"),
        ("sampled", 256, 9, "1 to 255"),
        ("top_k", 9, 9, "nothing is left outside"),
        ("sampled", 4, (1 << 24) + 1, "ids up to 16777216"),
    ],
)
def test_settings_out_of_bounds_are_refused(kind: str, k: int, vocabulary: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        coding_of(kind, k, vocabulary)  # type: ignore[arg-type]
