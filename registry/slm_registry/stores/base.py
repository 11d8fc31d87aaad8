"""The small interface of a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from slm_registry.plumbing.hashing import FileDigests
from slm_registry.plumbing.progress import Moved, ignore
from slm_registry.stores.items import Item


class Store(Protocol):
    """Keys to bytes. The only operation with a condition is `create`.

    Every method raises StoreError (or a class below it) where the store cannot be used.
    """

    url: str
    # What tells this store from every other one, where `url` is for people: a client remembers logs under it.
    identity: str

    def get(self, key: str, limit: int) -> bytes | None:
        """All bytes of a small object, None where there is none. Raises CorruptError if it exceeds `limit`."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to but without `end`; fewer where the object is shorter or missing."""

    def size(self, key: str) -> int | None:
        """How many bytes the object has, None where there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Create an object that must not exist yet, durably. True when the key now holds exactly `data`.

        `data` must be unique to the caller (it carries a nonce): a call whose answer got lost recognises its own.
        """

    def put_blob(
        self,
        key: str,
        source: Path,
        hex_digest: str,
        digests: FileDigests | None = None,
        moved: Moved = ignore,
    ) -> bool:
        """Store a file whose key is its content, going on where an earlier attempt broke.

        `digests` are the file's, where the caller knows them. `moved` hears of each piece, in bytes. Answers whether
        what was stored is checked: False asks the caller to read it back. Raises CorruptError if the file no longer
        has that digest.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a small object, atomically."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is fine."""

    def children(self, prefix: str) -> list[str]:
        """The names directly below `prefix/`, sorted, files and folders alike."""

    def listing(self, prefix: str) -> Iterator[Item]:
        """The objects directly below `prefix/`, in no order, with sizes and ages."""

    def unfinished(self, before: float, *, remove: bool) -> list[Item]:
        """Writes begun before this time of the store's clock and never ended; removed where that is asked."""
