"""Keeping the cache within its size, without taking what anybody uses.

A reader holds a shared flock on `locks/<hex>.lock` for as long as it uses that snapshot, and touches it: its time is the
time of last use. Whoever fetches holds a shared flock on `locks/cache.lock`. An evictor takes `cache.lock` exclusively
(where it cannot, somebody is fetching, and evicts when done), then each snapshot's lock exclusively, least recently used
first, and passes over those it cannot have. It waits for nobody; the kernel drops the locks of processes that die.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slm_registry.errors import UsageError
from slm_registry.plumbing.files import make_folders, os_errors
from slm_registry.plumbing.partial import still_at

logger = logging.getLogger("slm_registry")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B?", re.IGNORECASE)
_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot in the cache: its size in bytes, when it was last used (seconds since 1970), whether it is in use."""

    model: str
    digest: str
    size: int
    used: float
    in_use: bool
    path: Path


def parse_size(text: str) -> int:
    """Bytes, from `5000000`, `500MB` or `2GiB`. Raises UsageError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"size {text!r}: write bytes, or a number with kB, MB, GB, KiB, MiB or GiB")
    size = float(match[1]) * _UNITS[(match[2] or "").lower()]
    if size == float("inf"):
        raise UsageError(f"size {text[:40]!r}...: more than any disk has")
    return int(size)


def size_limit(given: int | None) -> int | None:
    """The bound in bytes: the one given, or $SLM_REGISTRY_CACHE_SIZE, or none."""
    named = os.environ.get("SLM_REGISTRY_CACHE_SIZE")
    if given is not None or not named:
        return given
    return parse_size(named)


def hold(root: Path, name: str) -> IO[bytes] | None:
    """A shared lock on a snapshot, held until it is closed, its time of use now. None where nothing can be written."""
    try:
        lock = _lock(_lock_path(root, name), fcntl.LOCK_SH)
        os.utime(lock.fileno())
    except OSError as error:
        logger.debug("no lock on %s: %s", name, error)
        return None
    return lock


@contextlib.contextmanager
def fetching(root: Path) -> Iterator[None]:
    """While this lasts no blob is evicted."""
    with _lock(_lock_path(root, "cache"), fcntl.LOCK_SH):
        yield


class Evictor:
    """Takes from a cache folder what was not used for longest."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def snapshots(self) -> list[Kept]:
        """What is there, least recently used first."""
        with os_errors("read", self.root):
            found = [self._kept(path) for path in self.root.glob("models/*/snapshots/*") if path.is_dir()]
        return sorted(found, key=lambda kept: (kept.used, kept.digest))

    def size(self) -> int:
        """Bytes of files and partial files, each counted once however many links it has."""
        with os_errors("read", self.root):
            return _size([self.root / "blobs", self.root / "models", self.root / ".tmp"])

    def evict(self, limit: int, room_for: int = 0) -> tuple[Kept, ...]:
        """Take snapshots until the cache, and `room_for` bytes more, are within `limit`. What went is returned.

        What is in use stays, and is logged where the bound cannot be held for it. While somebody fetches nothing goes.
        """
        return self.try_evict(limit, room_for) or ()

    def try_evict(self, limit: int, room_for: int = 0) -> tuple[Kept, ...] | None:
        """As `evict`, and None where somebody fetches."""
        with os_errors("write", self.root), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_lock(_lock_path(self.root, "cache"), fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            target = limit - room_for
            gone: list[Kept] = []
            over = self.size() > target
            if over:
                self._sweep()
            for kept in self.snapshots() if over else []:
                if self.size() <= target:
                    break
                if self._take(kept):
                    gone.append(kept)
            if self.size() > target:
                logger.warning("the cache %s needs more than its %d bytes: the rest is in use", self.root, limit)
        return tuple(gone)

    def _take(self, kept: Kept) -> bool:
        """Remove a snapshot and what only it needed; False where somebody uses it."""
        path = _lock_path(self.root, kept.digest)
        try:
            lock = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with lock:
            temporary = self.root / ".tmp" / uuid.uuid4().hex
            make_folders(temporary.parent)
            kept.path.rename(temporary)
            shutil.rmtree(temporary)
            (self.root / "manifests" / kept.digest).unlink(missing_ok=True)
            path.unlink()
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Remove blobs that no snapshot links to, and what broken runs left. Nobody fetches now."""
        for path in (self.root / "blobs").glob("*"):
            if path.lstat().st_nlink == 1:
                path.unlink()
        for path in (self.root / ".tmp").glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _kept(self, path: Path) -> Kept:
        lock = _lock_path(self.root, path.name)
        used = (lock if lock.exists() else path).stat().st_mtime
        return Kept(path.parents[1].name, path.name, _size([path]), used, _is_locked(lock), path)


def _lock_path(root: Path, name: str) -> Path:
    return root / "locks" / f"{name}.lock"


def _lock(path: Path, how: int) -> IO[bytes]:
    """An open file with a lock on it. Raises BlockingIOError where LOCK_NB is asked and another holds it."""
    make_folders(path.parent)
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+b")
        try:
            fcntl.flock(file, how)
            if still_at(path, file.fileno()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _size(folders: list[Path]) -> int:
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if not path.is_dir():
                    seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())
