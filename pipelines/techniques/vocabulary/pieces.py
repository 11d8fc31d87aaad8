"""What the tokenizer models share: the protocol behind which they stand, characters, and fallbacks to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Protocol

#: The tokens that byte fallback spells a character with when it has none of its own.
BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))


class Pieces(Protocol):
    """The `model` entry of a tokenizer.json: its tokens, and which of them need which."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        """Read an entry; it is never changed."""

    def tokens(self) -> dict[str, int]:
        """Id of each token; added tokens may stand outside."""

    def needed(self, wanted: Set[str]) -> set[str]:
        """`wanted` and every token that must stay beside them.

        With these alone each text whose tokens all stay is cut as before, and any other is cut without more loss.
        """

    def cut(self, renumbered: Mapping[int, int]) -> dict[str, Any]:
        """The entry with the renumbered tokens alone."""


def spelled_by_bytes(entry: Mapping[str, Any], tokens: Set[str]) -> bool:
    """True where every character without a token is spelled in bytes."""
    return bool(entry.get("byte_fallback")) and tokens >= BYTES


def beyond_spelling(tokens: Iterable[str], characters: Set[str]) -> set[str]:
    """Tokens with a character that has no token of its own: without them their text would become unknown."""
    return {token for token in tokens if not set(token) <= characters}
