from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.techniques.augmenting import synthetic_texts

TEXTS = ["where is my parcel today", "please refund the broken kettle", "i cannot log in", "ok"]


@given(st.lists(st.text(max_size=40), max_size=20), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=60)
def test_new_distinct_texts_within_bounds(texts: list[str], copies: int, seed: int) -> None:
    made = synthetic_texts(texts, copies, seed)
    assert len(set(made)) == len(made) <= copies * len(texts)
    assert not set(made) & set(texts)
    assert all(text.strip() for text in made)
    assert made == synthetic_texts(texts, copies, seed)


def test_every_kind_occurs() -> None:
    made = synthetic_texts(TEXTS, 40, 0)
    words = {word for text in TEXTS for word in text.split()}
    known = [set(text.split()) <= words for text in made]
    assert any(known)  # cut-mix and deletion use the corpus's words alone
    assert not all(known)  # typos make new ones
    heads = {text.split()[0] for text in TEXTS}
    assert any(
        text.split()[0] in heads and text.split()[-1] in {"today", "kettle"} and text not in TEXTS for text in made
    )
