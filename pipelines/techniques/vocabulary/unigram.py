"""Unigram (T5, XLM-R): the likeliest cut by the tokens' own scores (Kudo 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from pipelines.techniques.vocabulary.pieces import BYTES, beyond_spelling, spelled_by_bytes


class Unigram:
    """A likeliest path stays the likeliest when others leave, as long as an unknown character costs the same."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry
        self._scores: dict[str, float] = dict(entry["vocab"])

    def tokens(self) -> dict[str, int]:
        """Id of each token: its place in the list."""
        return {token: at for at, (token, _) in enumerate(self._entry["vocab"])}

    def needed(self, wanted: Set[str]) -> set[str]:
        """`wanted`, the unknown token, characters, bytes, and what no characters can spell.

        The least likely token stays too: the cost of an unknown character is counted from its score.
        """
        everything = self._scores.keys()
        singles = {token for token in everything if len(token) == 1}
        stay = set(wanted) | singles | (BYTES & everything) | {min(self._scores, key=self._scores.__getitem__)}
        if self._entry.get("unk_id") is not None:
            stay.add(self._entry["vocab"][self._entry["unk_id"]][0])
        if not spelled_by_bytes(self._entry, everything):
            stay |= beyond_spelling(everything, singles)
        return stay

    def cut(self, renumbered: Mapping[int, int]) -> dict[str, Any]:
        """The entry with the renumbered tokens alone, each at its new place."""
        places = sorted((renumbered[at], at) for at in range(len(self._entry["vocab"])) if at in renumbered)
        unknown = self._entry.get("unk_id")
        return {
            **self._entry,
            "vocab": [self._entry["vocab"][old] for _, old in places],
            "unk_id": None if unknown is None else renumbered[unknown],
        }
