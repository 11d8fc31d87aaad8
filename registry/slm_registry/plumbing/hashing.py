"""Digests: of bytes, of files whole and by chunk."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

CHUNK = 16 << 20
# What the digests of a file's chunks are of: each chunk, or the file from its front to the chunk's end. The second kind
# falls off the digest of the whole; the first, of earlier releases, costs a pass of its own.
Form = Literal["chunks", "prefixes"]
CHUNKS: Final = "chunks"
PREFIXES: Final = "prefixes"

Span = tuple[int, int, str]
_BLOCK = 1 << 20


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class FileDigests:
    """A file's size, the digest of the whole, and a bare hex digest for each chunk of `chunk_size` bytes, as `form` says.

    `checksums` are the chunks' CRC-32, where they were asked for.
    """

    size: int
    digest: str
    chunks: tuple[str, ...]
    chunk_size: int = CHUNK
    checksums: tuple[int, ...] = ()

    def spans(self) -> Iterator[Span]:
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


def digest_file(
    file: BinaryIO,
    chunk_size: int = CHUNK,
    sink: Callable[[bytes], object] | None = None,
    *,
    form: Form = PREFIXES,
    checksums: bool = False,
) -> FileDigests:
    """Read an open file once, from where it stands, and return all of its digests; `sink` is handed each block."""
    from concurrent.futures import ThreadPoolExecutor

    whole, size = hashlib.sha256(), 0
    chunks: list[str] = []
    sums: list[int] = []
    with ThreadPoolExecutor(1) as helper:
        while True:
            chunk = _Chunk(sink, hashlib.sha256() if form == CHUNKS else None, checksums)
            length = _feed(read_blocks(file, chunk_size), whole, chunk, helper)
            if not length:
                return FileDigests(size, f"sha256:{whole.hexdigest()}", tuple(chunks), chunk_size, tuple(sums))
            size += length
            chunks.append((chunk.own or whole).hexdigest())
            if checksums:
                sums.append(chunk.checksum)


class _Chunk:
    """What becomes of a chunk's blocks beside the digest of the whole; every use is of one buffer, so they always agree."""

    def __init__(self, sink: Callable[[bytes], object] | None, own: hashlib._Hash | None, checksums: bool) -> None:
        self.own = own
        self.checksum = 0
        self._sink = sink
        self._checksums = checksums

    def update(self, block: bytes) -> None:
        """Take the next block."""
        if self._sink is not None:
            self._sink(block)
        if self.own is not None:
            self.own.update(block)
        if self._checksums:
            self.checksum = zlib.crc32(block, self.checksum)


def _feed(blocks: Iterable[bytes], whole: hashlib._Hash, chunk: _Chunk, helper: ThreadPoolExecutor) -> int:
    """Hash blocks into the whole while they go elsewhere and the next one is read; how many bytes there were."""
    length, busy = 0, None
    for block in blocks:
        if busy is not None:
            busy.result()
        # A short block is not worth another thread.
        busy = helper.submit(whole.update, block) if len(block) == _BLOCK else None
        if busy is None:
            whole.update(block)
        chunk.update(block)
        length += len(block)
    if busy is not None:
        busy.result()
    return length
