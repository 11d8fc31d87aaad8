from __future__ import annotations

from collections import Counter
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import Levers
from pipelines.techniques.augmenting import synthetic_texts

TEXTS = ["where is my parcel today", "please refund the broken kettle", "i cannot log in", "ok"]


def levers(cut_mix: int = 0, dropped_words: int = 0, typos: int = 0) -> Levers:
    return Levers(cut_mix=cut_mix, dropped_words=dropped_words, typos=typos, written=None)


@given(st.lists(st.text(max_size=40), max_size=20), st.tuples(*[st.integers(0, 3)] * 3), st.integers(0, 99))
@settings(max_examples=60)
def test_new_distinct_texts_within_bounds(texts: list[str], copies: tuple[int, int, int], seed: int) -> None:
    wanted = levers(*copies)
    made = synthetic_texts(texts, wanted, seed)
    everything = list(chain.from_iterable(made.values()))
    assert len(set(everything)) == len(everything)
    assert not set(everything) & set(texts)
    assert all(text.strip() for text in everything)
    assert all(len(some) <= getattr(wanted, name) * len(texts) for name, some in made.items())
    assert set(made) == {name for name in ("cut_mix", "dropped_words", "typos") if getattr(wanted, name)}
    assert made == synthetic_texts(texts, wanted, seed)


def test_a_cut_mix_is_a_head_and_a_tail() -> None:
    made = synthetic_texts(TEXTS, levers(cut_mix=40), 0)["cut_mix"]
    words = [text.split() for text in TEXTS]
    heads = {tuple(row[:cut]) for row in words for cut in range(len(row) + 1)}
    tails = {tuple(row[cut:]) for row in words for cut in range(len(row) + 1)}
    assert len(made) > 20
    for text in made:
        row = tuple(text.split())
        assert any(row[:cut] in heads and row[cut:] in tails for cut in range(len(row) + 1)), text


def test_dropped_words_leave_the_others_in_order() -> None:
    made = synthetic_texts(TEXTS, levers(dropped_words=20), 0)["dropped_words"]
    assert len(made) > 5
    for text in made:
        assert any(_within(text.split(), own.split()) for own in TEXTS), text


def test_a_typo_keeps_a_words_letters() -> None:
    made = synthetic_texts(TEXTS, levers(typos=20), 0)["typos"]
    letters = {tuple(sorted(Counter(text).items())) for text in TEXTS}
    assert len(made) > 5
    assert {tuple(sorted(Counter(text).items())) for text in made} <= letters


def test_a_lever_makes_the_same_texts_whatever_the_others_make() -> None:
    alone = synthetic_texts(TEXTS, levers(typos=1), 3)["typos"]
    beside = synthetic_texts(TEXTS, levers(cut_mix=1, typos=1), 3)["typos"]
    assert alone == beside


def _within(some: list[str], every: list[str]) -> bool:
    left = iter(every)
    return all(word in left for word in some)
