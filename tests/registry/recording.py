"""A store that remembers what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slm_registry.plumbing.hashing import FileDigests
from slm_registry.plumbing.progress import Moved, ignore
from slm_registry.stores.base import Store
from slm_registry.stores.items import Item


class RecordingStore:
    """Passes everything on, and keeps a list of the calls as (method, key, ...)."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.url = inner.url
        self.identity = inner.identity
        self.calls: list[tuple[object, ...]] = []

    def named(self, method: str) -> list[tuple[object, ...]]:
        return [call[1:] for call in self.calls if call[0] == method]

    def get(self, key: str, limit: int) -> bytes | None:
        self.calls.append(("get", key))
        return self.inner.get(key, limit)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        self.calls.append(("stream", key, start, end))
        return self.inner.stream(key, start, end)

    def size(self, key: str) -> int | None:
        self.calls.append(("size", key))
        return self.inner.size(key)

    def create(self, key: str, data: bytes) -> bool:
        self.calls.append(("create", key))
        return self.inner.create(key, data)

    def put_blob(
        self,
        key: str,
        source: Path,
        hex_digest: str,
        digests: FileDigests | None = None,
        moved: Moved = ignore,
    ) -> bool:
        self.calls.append(("put_blob", key))
        return self.inner.put_blob(key, source, hex_digest, digests, moved)

    def put(self, key: str, data: bytes) -> None:
        self.calls.append(("put", key))
        self.inner.put(key, data)

    def delete(self, key: str) -> None:
        self.calls.append(("delete", key))
        self.inner.delete(key)

    def children(self, prefix: str) -> list[str]:
        self.calls.append(("children", prefix))
        return self.inner.children(prefix)

    def listing(self, prefix: str) -> Iterator[Item]:
        self.calls.append(("listing", prefix))
        return self.inner.listing(prefix)

    def unfinished(self, before: float, *, remove: bool) -> list[Item]:
        self.calls.append(("unfinished", before, remove))
        return self.inner.unfinished(before, remove=remove)
