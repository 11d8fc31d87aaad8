"""The small interface of a store, and the store that is a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from slm_registry.errors import (
    CorruptError,
    NoSpaceError,
    ReadOnlyError,
    StoreError,
    UnreachableError,
    UsageError,
)
from slm_registry.hashing import read_blocks

_KEY = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(/[a-z0-9][A-Za-z0-9._-]*)*")
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Below a file there is nothing, just as below a folder that is missing.
_ABSENT = (FileNotFoundError, NotADirectoryError)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class Store(Protocol):
    """Keys to bytes. The only operation with a condition is `create`.

    Every method raises StoreError (or a class below it) where the store cannot be used.
    """

    url: str

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

    def put_blob(self, key: str, source: Path, hex_digest: str) -> None:
        """Store a file whose key is its content. Raises CorruptError if the file no longer has that digest."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a small object, atomically."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is fine."""

    def children(self, prefix: str) -> list[str]:
        """The names directly below `prefix/`, sorted, files and folders alike."""


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store behind a path, a `file://` URL or an `s3://bucket/prefix` URL. Nothing is contacted yet.

    Raises UsageError for any other URL.
    """
    text = os.fspath(url)
    if not text:
        raise UsageError("the store's address is empty; give a folder or s3://bucket/prefix")
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "s3":
        from slm_registry.s3 import S3Store  # boto3 stays unimported for folders

        return S3Store.from_url(text)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(f"store {text!r}: a file URL has three slashes: file:///srv/store")
        return FolderStore(Path(unquote(parts.path)))
    if scheme:
        raise UsageError(
            f"store {text!r}: the scheme {scheme!r} is unknown; use a folder, file:// or s3://bucket/prefix"
        )
    return FolderStore(Path(text).expanduser())


def check_key(key: str) -> str:
    """`key`, if it is one that this package makes. Raises UsageError otherwise."""
    if not _KEY.fullmatch(key):
        raise UsageError(f"store key {key[:80]!r} is not allowed")
    return key


@contextlib.contextmanager
def os_errors(what: str, path: Path | str) -> Iterator[None]:
    """Turn the operating system's errors into the registry's, naming what was tried and on which path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _READ_ONLY:
            raise ReadOnlyError(
                f"cannot {what} {path}: {reason}; check that this user may do so and the file system is writable"
            ) from error
        if error.errno in _FULL:
            raise NoSpaceError(f"cannot {what} {path}: {reason}; free some space and run it again") from error
        raise UnreachableError(f"cannot {what} {path}: {reason}; check that the folder is there and is one") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading. Raises CorruptError for a link, a device or a folder, OSError otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptError(f"{path}: a plain file was expected, found a link or a device; remove it") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError(f"{path}: a plain file was expected; remove what stands there")
    return os.fdopen(descriptor, "rb")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> None:
    """Create a folder and those above it, each made durable in the one that holds it."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


class FolderStore:
    """A store in a folder of a local or network file system that has hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(root)

    def get(self, key: str, limit: int) -> bytes | None:
        path = self._path(key)
        with os_errors("read", path):
            try:
                with open_regular(path) as file:
                    data = file.read(limit + 1)
            except _ABSENT:
                return None
        if len(data) > limit:
            raise CorruptError(f"{path}: more than the {limit} bytes allowed for such a file")
        return data

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        path = self._path(key)
        with os_errors("read", path):
            try:
                with open_regular(path) as file:
                    file.seek(start)
                    yield from read_blocks(file, end - start)
            except _ABSENT:
                return

    def size(self, key: str) -> int | None:
        path = self._path(key)
        with os_errors("read", path):
            try:
                return path.lstat().st_size
            except _ABSENT:
                return None

    def create(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with os_errors("write", target), self._written(data) as temporary:
            make_folders(target.parent)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return self.size(key) == len(data) and self.get(key, len(data)) == data
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StoreError(
                    f"{self.url}: no hard links on this file system ({error.strerror}), and without them two "
                    "writers cannot be told apart; put the store on another file system or in a bucket"
                ) from error
            sync_folder(target.parent)
        return True

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with os_errors("write", target), self._written(data) as temporary:
            self._move(temporary, target)

    def put_blob(self, key: str, source: Path, hex_digest: str) -> None:
        target = self._path(key)
        with os_errors("read", source):
            data = open_regular(source)
        with data, os_errors("write", target), self._temporary() as (temporary, file):
            hasher = hashlib.sha256()
            for block in read_blocks(data):
                hasher.update(block)
                file.write(block)
            if hasher.hexdigest() != hex_digest:
                raise CorruptError(f"{source}: the file changed while it was published; run it again")
            _finish(file)
            self._move(temporary, target)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with os_errors("remove", path):
            path.unlink(missing_ok=True)

    def children(self, prefix: str) -> list[str]:
        path = self._path(prefix)
        with os_errors("list", path):
            try:
                return sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith("."))
            except _ABSENT:
                return []

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _move(self, temporary: Path, target: Path) -> None:
        make_folders(target.parent)
        temporary.replace(target)
        sync_folder(target.parent)

    @contextlib.contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        with self._temporary() as (path, file):
            file.write(data)
            _finish(file)
            yield path

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file beside the data, on the same file system, gone afterwards unless it was moved away."""
        folder = self.root / ".tmp"
        make_folders(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
