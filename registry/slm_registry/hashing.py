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
    """A file's size, the digest of the whole and the bare hex digest of each chunk of `chunk_size` bytes."""

    size: int
    digest: str
    chunks: tuple[str, ...]
    chunk_size: int = CHUNK

    def spans(self) -> Iterator[tuple[int, int, str]]:
        """Start, end and digest of each chunk."""
        for index, chunk in enumerate(self.chunks):
            start = index * self.chunk_size
            yield start, min(start + self.chunk_size, self.size), chunk


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
    first, length = _digest_chunk(file, chunk_size)
    if length < chunk_size:
        # Of a single chunk the digest is that of the whole.
        return FileDigests(length, f"sha256:{first.hexdigest()}", (first.hexdigest(),) if length else (), chunk_size)
    return _digest_rest(file, chunk_size, first)


def _digest_chunk(file: BinaryIO, chunk_size: int) -> tuple[hashlib._Hash, int]:
    hasher, length = hashlib.sha256(), 0
    for block in read_blocks(file, chunk_size):
        hasher.update(block)
        length += len(block)
    return hasher, length


def _digest_rest(file: BinaryIO, chunk_size: int, first: hashlib._Hash) -> FileDigests:
    """The digests of a file whose first chunk was read; both kinds are fed from one buffer, so they always agree."""
    from concurrent.futures import ThreadPoolExecutor

    whole, chunks, size = first.copy(), [first.hexdigest()], chunk_size
    with ThreadPoolExecutor(1) as helper:
        while True:
            part, length = hashlib.sha256(), 0
            for block in read_blocks(file, chunk_size):
                busy = helper.submit(whole.update, block)
                part.update(block)
                length += len(block)
                busy.result()
            if not length:
                return FileDigests(size, f"sha256:{whole.hexdigest()}", tuple(chunks), chunk_size)
            chunks.append(part.hexdigest())
            size += length
