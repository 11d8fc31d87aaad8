"""Synthetic texts for distillation: the teacher says what they mean, so they need no label and may be odd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

#: Share of a text's words that a deletion drops, and of its words that a typo hits.
DROPPED, MISTYPED = 0.2, 0.2


def synthetic_texts(texts: Sequence[str], copies: int, seed: int) -> list[str]:
    """About `copies` variations of every text, none of which is a text given; seeded, in a fixed order.

    Each is one of: the head of one text with the tail of another (phrase cut-mix), words dropped, letters
    swapped. Ratio 2 : 1 : 1.
    """
    rng = np.random.default_rng(seed)
    words = [text.split() for text in texts]
    seen, made = set(texts), []
    recipes: tuple[Callable[[list[str], list[str], np.random.Generator], list[str]], ...] = (
        _cut_mix,
        _cut_mix,
        _drop,
        _mistype,
    )
    for _ in range(copies):
        for own, other in zip(words, rng.permutation(len(words)), strict=True):
            text = " ".join(recipes[rng.integers(len(recipes))](own, words[other], rng))
            if text and text not in seen:
                seen.add(text)
                made.append(text)
    return made


def _cut_mix(own: list[str], other: list[str], rng: np.random.Generator) -> list[str]:
    head, tail = rng.integers(0, len(own) + 1), rng.integers(0, len(other) + 1)
    return own[:head] + other[tail:]


def _drop(own: list[str], _other: list[str], rng: np.random.Generator) -> list[str]:
    return [word for word, kept in zip(own, rng.random(len(own)) >= DROPPED, strict=True) if kept]


def _mistype(own: list[str], _other: list[str], rng: np.random.Generator) -> list[str]:
    return [
        _swap_letters(word, rng) if hit else word
        for word, hit in zip(own, rng.random(len(own)) < MISTYPED, strict=True)
    ]


def _swap_letters(word: str, rng: np.random.Generator) -> str:
    if len(word) < 3:
        return word
    at = int(rng.integers(0, len(word) - 1))
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
