"""A vocabulary dealt into folds, and read without one of them: longer words then come in pieces.

What training text holds whole a student never sees in pieces, and pieces are all it has of a word that training text lacks. After
BPE-dropout (Provilkov et al. 2020) and MaxMatch-dropout (Hiraoka 2022), which pass over tokens at random while they cut; to leave
tokens out of the vocabulary itself does the same for every tokenizer that can be pruned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.techniques.vocabulary.choices import Cut
from pipelines.techniques.vocabulary.cutting import kept_without, prune_tokenizer


def folds_of(tokenizer: Any, count: int, seed: int) -> list[Cut]:
    """`count` vocabularies, each without another share of the tokens; ids are the given tokenizer's.

    What others need, special tokens and single characters stay in all of them. Raises ModelError for a tokenizer that cannot be pruned.
    """
    every = max(tokenizer.get_vocab().values()) + 1  # ids may have gaps
    fold = np.random.default_rng(seed).integers(0, count, every)
    kept = [kept_without(tokenizer, np.flatnonzero(fold == which).tolist()) for which in range(count)]
    return [Cut(prune_tokenizer(tokenizer, ids), ids) for ids in kept]
