"""Synthetic texts for distillation: the teacher says what they mean, so they need no label and may be odd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.config import Levers

#: Share of a text's words that a deletion drops, and of its words that a typo hits.
DROPPED, MISTYPED = 0.2, 0.2

#: A text's words, those of another text, and the randomness.
Recipe = Callable[[list[str], list[str], np.random.Generator], list[str]]


def synthetic_texts(texts: Sequence[str], wanted: Levers, seed: int) -> dict[str, list[str]]:
    """Variations of every text by the lever that makes them, as many of each as wanted; seeded, in a fixed order.

    No text is one of those given, and none stands twice, so that there are a few less than asked for.
    """
    seen = set(texts)
    return {
        name: _varied(texts, recipe, getattr(wanted, name), np.random.default_rng([seed, at]), seen)
        for at, (name, recipe) in enumerate(_RECIPES.items())
        if getattr(wanted, name)
    }


def _varied(texts: Sequence[str], recipe: Recipe, copies: int, rng: np.random.Generator, seen: set[str]) -> list[str]:
    """`copies` variations of every text that are new; they go into `seen`."""
    words = [text.split() for text in texts]
    made = []
    for _ in range(copies):
        for own, other in zip(words, rng.permutation(len(words)), strict=True):
            text = " ".join(recipe(own, words[other], rng))
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


_RECIPES: dict[str, Recipe] = {"cut_mix": _cut_mix, "dropped_words": _drop, "typos": _mistype}
