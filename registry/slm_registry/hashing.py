"""Digests: of bytes, of files whole and by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 16 << 20
_BLOCK = 1 << 20


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class FileDigests:
    """A file's size, the digest of the whole and the bare hex digest of each chunk."""

    size: int
    digest: str
    chunks: tuple[str, ...]


def read_blocks(file: BinaryIO, count: int | None = None) -> Iterator[bytes]:
    """The file's bytes in blocks, from where it stands: to the end, or `count` bytes at most."""
    left = count
    while left is None or left > 0:
        block = file.read(_BLOCK if left is None else min(_BLOCK, left))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def digest_file(file: BinaryIO, chunk_size: int = CHUNK) -> FileDigests:
    """Read an open file once, from where it stands, and return all of its digests."""
    whole = hashlib.sha256()
    chunks: list[str] = []
    size = 0
    while True:
        part = hashlib.sha256()
        length = 0
        for block in read_blocks(file, chunk_size):
            whole.update(block)
            part.update(block)
            length += len(block)
        if not length:
            break
        chunks.append(part.hexdigest())
        size += length
    return FileDigests(size, "sha256:" + whole.hexdigest(), tuple(chunks))
