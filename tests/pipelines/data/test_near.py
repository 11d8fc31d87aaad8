"""The fast join against the slow definition."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data import near
from pipelines.data.near import grams, near_groups, near_matches, near_pairs, normalise

#: Few letters, so that random texts are often alike.
TEXTS = st.lists(st.text("ab c", max_size=14), max_size=14)
SIMILARITIES = st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.99])


def similar(one: str, two: str) -> Fraction:
    left, right = grams(one), grams(two)
    return Fraction(len(left & right), len(left | right))


def by_hand(texts: list[str], similarity: float) -> list[tuple[int, int]]:
    pairs = combinations(range(len(texts)), 2)
    return [(i, j) for i, j in pairs if similar(texts[i], texts[j]) >= Fraction(str(similarity))]


@settings(max_examples=400, deadline=None)
@given(texts=TEXTS, similarity=SIMILARITIES)
def test_pairs_equal_brute_force(texts, similarity):
    unique = list(dict.fromkeys(normalise(texts)))
    assert near_pairs(unique, similarity, None) == by_hand(unique, similarity)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, similarity=SIMILARITIES)
def test_chunks_change_nothing(texts, similarity):
    unique = list(dict.fromkeys(normalise(texts)))
    before, near.CHUNK = near.CHUNK, 3
    try:
        assert near_pairs(unique, similarity, None) == by_hand(unique, similarity)
    finally:
        near.CHUNK = before


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, against=TEXTS, similarity=SIMILARITIES)
def test_matches_equal_brute_force(texts, against, similarity):
    mine, others = normalise(texts), normalise(against)
    found = near_matches(texts, against, similarity)
    for text, match in zip(mine, found, strict=True):
        close = [j for j, other in enumerate(others) if similar(text, other) >= Fraction(str(similarity))]
        assert match == (close[0] if close else None)


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, similarity=SIMILARITIES)
def test_groups_are_the_connected_components(texts, similarity):
    groups = near_groups(texts, similarity)
    labels = list(range(len(texts)))
    for _ in texts:  # the slow way: spread the smallest number along every pair until nothing moves
        for i, j in by_hand(normalise(texts), similarity):
            labels[i] = labels[j] = min(labels[i], labels[j])
    assert [groups.index(group) for group in groups] == [labels.index(label) for label in labels]


def test_two_texts_that_only_a_third_holds_together():
    middle = "where is my parcel please"
    texts = [middle, "so " + middle, middle + " ok", "something else"]
    assert [(i, j) for i, j in by_hand(normalise(texts), 0.8) if i < j] == [(0, 1), (0, 2)]
    assert near_groups(texts, 0.8) == [0, 0, 0, 1]


def test_a_pair_on_the_threshold_counts():
    one, two = "abcdefgh", "abcdefghi"  # 5 grams, and the same 5 with a sixth
    assert near_pairs([one, two], 0.83, None) == [(0, 1)]
    assert near_pairs([one, two], 0.84, None) == []
    thirds = ["abcdeabcd", "abcdefg"]
    assert similar(*thirds) == Fraction(2, 7)
    assert near_pairs(["abcd", "abcde"], 0.5, None) == [(0, 1)]  # exactly a half


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Where is my parcel?", "where  is my parcel"),
        ("Straße 5", "STRASSE 5"),
        ("ﬁne — thanks", "fine, thanks!"),
        ("\tﾊﾟｰｾﾙ", "パーセル"),
    ],
)
def test_case_width_and_punctuation_do_not_count(one, two):
    assert normalise([one]) == normalise([two])
    assert near_groups([one, two], 0.99) == [0, 0]


def test_text_of_marks_alone_stays_apart():
    assert near_groups(["👍", "👎", "???", "!!!", "", " "], 0.8) == [0, 1, 2, 3, 4, 4]


def test_combining_marks_are_kept():
    assert normalise(["किताब"]) == ["किताब"]


def test_copies_make_no_square_of_pairs():
    start = time.perf_counter()
    assert set(near_groups(["the same words"] * 200_000, 0.8)) == {0}
    assert near_matches(["the same words"] * 100_000, ["The same words!"], 0.8) == [0] * 100_000
    assert time.perf_counter() - start < 10


def test_twenty_thousand_short_texts_in_seconds():
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(2, 8))) for _ in range(800)]
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 14))) for _ in range(19_000)]
    copies = [text + draw.choice(words)[:3] for text in draw.sample(texts, 1_000)]
    start = time.perf_counter()
    groups = near_groups(texts + copies, 0.8)
    assert time.perf_counter() - start < 10
    sizes = np.bincount(groups)
    assert 900 <= (sizes > 1).sum() <= 1_000
