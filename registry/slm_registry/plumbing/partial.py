"""Files under way: locked by who works on them, and open on where a broken run stopped."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """The descriptor of a partial file that no other process or thread works on; new and empty where there was none."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except PermissionError:
            # Earlier releases, killed at the end, left it read-only. Another user's, under way, is not.
            if not path.exists() or path.stat().st_mode & 0o200:
                raise
            path.unlink(missing_ok=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if still_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def still_at(path: Path, descriptor: int) -> bool:
    """Whether a locked file is still there under its name: its former owner may have finished and moved it away."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def blocks_at(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` up to but without `end`, in blocks; fewer where the file is shorter."""
    while start < end and (block := os.pread(descriptor, min(_BLOCK, end - start), start)):
        start += len(block)
        yield block


def hash_at(descriptor: int, start: int, end: int) -> str:
    """The bare SHA-256 of a stretch of an open file."""
    hasher = hashlib.sha256()
    for block in blocks_at(descriptor, start, end):
        hasher.update(block)
    return hasher.hexdigest()


def write_at(descriptor: int, data: bytes, start: int) -> None:
    """Write all of `data`: a file system may take less of it at a time."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count


def copy_at(source: int, target: int, start: int, end: int) -> int:
    """Copy a stretch of one open file to the same place in another, within the kernel where it can; how many bytes."""
    at = start
    try:
        while at < end and (count := os.copy_file_range(source, target, end - at, at, at)):
            at += count
    except (AttributeError, OSError):
        # macOS has no such call, and some file systems do not do it between each other.
        for block in blocks_at(source, at, end):
            write_at(target, block, at)
            at += len(block)
    return at - start
