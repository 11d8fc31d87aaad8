"""WordPiece (BERT): the longest token first, so each stands for itself."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any


class WordPiece:
    """Tokens need nothing but the characters, into which words without tokens are cut."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry

    def tokens(self) -> dict[str, int]:
        """Id of each token."""
        return dict(self._entry["vocab"])

    def needed(self, wanted: Set[str]) -> set[str]:
        """`wanted`, the unknown token and every single character."""
        vocabulary: dict[str, int] = self._entry["vocab"]
        prefix = self._entry["continuing_subword_prefix"]
        singles = {token for token in vocabulary if len(token.removeprefix(prefix)) == 1}
        return set(wanted) | singles | ({self._entry["unk_token"]} & vocabulary.keys())

    def cut(self, renumbered: Mapping[int, int]) -> dict[str, Any]:
        """The entry with the renumbered tokens alone."""
        stay = {token: renumbered[at] for token, at in self._entry["vocab"].items() if at in renumbered}
        return {**self._entry, "vocab": stay}
