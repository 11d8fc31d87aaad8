"""Digests: of bytes, of files whole and by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
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


def digest_file(file: BinaryIO, chunk_size: int = CHUNK, sink: Callable[[bytes], object] | None = None) -> FileDigests:
    """Read an open file once, from where it stands, and return all of its digests; `sink` is handed each block."""
    blocks = read_blocks if sink is None else _handing(sink)
    first, length = _digest_chunk(blocks(file, chunk_size))
    if length < chunk_size:
        # Of a single chunk the digest is that of the whole.
        return FileDigests(length, f"sha256:{first.hexdigest()}", (first.hexdigest(),) if length else (), chunk_size)
    return _digest_rest(lambda: blocks(file, chunk_size), chunk_size, first)


def _handing(sink: Callable[[bytes], object]) -> Callable[[BinaryIO, int], Iterator[bytes]]:
    """`read_blocks`, with each block handed on before it is digested."""

    def blocks(file: BinaryIO, count: int) -> Iterator[bytes]:
        for block in read_blocks(file, count):
            sink(block)
            yield block

    return blocks


def _digest_chunk(blocks: Iterable[bytes]) -> tuple[hashlib._Hash, int]:
    hasher, length = hashlib.sha256(), 0
    for block in blocks:
        hasher.update(block)
        length += len(block)
    return hasher, length


def _digest_rest(chunk: Callable[[], Iterable[bytes]], chunk_size: int, first: hashlib._Hash) -> FileDigests:
    """The digests of a file whose first chunk was read; both kinds are fed from one buffer, so they always agree."""
    from concurrent.futures import ThreadPoolExecutor

    whole, chunks, size = first.copy(), [first.hexdigest()], chunk_size
    with ThreadPoolExecutor(1) as helper:
        while True:
            part, length = hashlib.sha256(), 0
            for block in chunk():
                busy = helper.submit(whole.update, block)
                part.update(block)
                length += len(block)
                busy.result()
            if not length:
                return FileDigests(size, f"sha256:{whole.hexdigest()}", tuple(chunks), chunk_size)
            chunks.append(part.hexdigest())
            size += length
