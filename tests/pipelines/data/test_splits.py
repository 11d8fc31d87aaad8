"""Cuts: every row once, shares kept, near-duplicates together, and nothing left to chance but the seed."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.near import grams, near_groups, normalise
from pipelines.data.splits import cut

FRACTIONS = {"validation": 0.2, "test": 0.3}
LABELS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=120)


def quota(count: int, split: str) -> float:
    return count * FRACTIONS.get(split, 0.5)


@settings(max_examples=200, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 9))
def test_every_class_has_its_share_within_rounding(labels, seed):
    texts = [f"text {i}" for i in range(len(labels))]
    splits = cut(texts, labels, list(range(len(labels))), FRACTIONS, seed)
    assert set(splits) <= {"train", "validation", "test"}
    for label, count in Counter(labels).items():
        own = Counter(split for split, mine in zip(splits, labels, strict=True) if mine == label)
        for split in ("validation", "test"):
            assert abs(own[split] - quota(count, split)) <= 1
        assert own["train"] >= 1 and abs(own["train"] - quota(count, "train")) <= 2
        assert count < 3 or min(own[split] for split in ("train", "validation", "test")) >= 1


@settings(max_examples=200, deadline=None)
@given(data=st.data(), seed=st.integers(0, 9))
def test_groups_stay_whole_and_cost_no_more_than_their_rows(data, seed):
    labels = data.draw(LABELS)
    groups = data.draw(st.lists(st.integers(0, 40), min_size=len(labels), max_size=len(labels)))
    texts = [f"text {i}" for i in range(len(labels))]
    splits = cut(texts, labels, groups, FRACTIONS, seed)
    assert len(splits) == len(texts)
    where = {group: {split for split, own in zip(splits, groups, strict=True) if own == group} for group in groups}
    assert all(len(found) == 1 for found in where.values())
    multiple = sum(size for size in Counter(groups).values() if size > 1)
    for label, count in Counter(labels).items():
        own = Counter(split for split, mine in zip(splits, labels, strict=True) if mine == label)
        for split in ("train", "validation", "test"):
            assert abs(own[split] - quota(count, split)) <= 2 + multiple


@settings(max_examples=50, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(labels, seed, order):
    rows = [(f"text {i}", label, i // 2) for i, label in enumerate(labels)]
    shuffled = order.sample(rows, len(rows))
    first, second = (
        dict(zip([t for t, _, _ in some], cut(*map(list, zip(*some, strict=True)), FRACTIONS, seed), strict=True))
        for some in (rows, shuffled)
    )
    assert first == second


def test_seed_decides():
    texts, labels = [f"text {i}" for i in range(400)], ["a", "b"] * 200
    cuts = [cut(texts, labels, list(range(400)), FRACTIONS, seed) for seed in (1, 1, 2)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert Counter(cuts[0]) == Counter(cuts[2]) == {"train": 200, "validation": 80, "test": 120}


def test_a_large_group_takes_its_place_while_there_is_room():
    groups = [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    for seed in range(20):
        splits = cut([f"text {i}" for i in range(10)], ["a"] * 10, groups, FRACTIONS, seed)
        assert Counter(splits) == {"train": 5, "validation": 2, "test": 3}


def test_a_small_class_reaches_every_split_where_it_has_the_rows():
    fractions = {"validation": 0.05, "test": 0.05}
    for count, splits in (
        (1, {"train"}),
        (2, {"train"}),
        (3, {"train", "validation", "test"}),
        (5, {"train", "validation", "test"}),
    ):
        assert set(cut([f"text {i}" for i in range(count)], ["a"] * count, list(range(count)), fractions, 1)) == splits


def test_large_groups_reach_every_split():
    """The draw is by room, so held-out rows are no selection of the texts without relatives."""
    texts = [f"text {i}" for i in range(2_000)]
    groups = [i // 5 for i in range(1_000)] + list(range(1_000, 2_000))
    splits = cut(texts, ["a"] * 2_000, groups, FRACTIONS, 0)
    in_groups = Counter(splits[:1_000])
    assert in_groups["test"] > 200 and in_groups["validation"] > 120


def test_no_near_duplicate_pair_across_splits():
    draw = random.Random(3)
    words = [
        "where",
        "is",
        "my",
        "parcel",
        "refund",
        "order",
        "late",
        "broken",
        "wrong",
        "size",
        "please",
        "money",
        "back",
        "today",
    ]
    texts = list(dict.fromkeys(" ".join(draw.choices(words, k=draw.randint(3, 7))) for _ in range(600)))
    labels = [draw.choice("ab") for _ in texts]
    splits = cut(texts, labels, near_groups(texts, 0.6), FRACTIONS, 5)
    sets = [grams(text) for text in normalise(texts)]
    close = [
        (i, j) for i in range(len(texts)) for j in range(i) if len(sets[i] & sets[j]) >= 0.6 * len(sets[i] | sets[j])
    ]
    assert len(close) > 30
    assert all(splits[i] == splits[j] for i, j in close)
