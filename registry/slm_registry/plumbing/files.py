"""Files and folders: opened without following links, made durable, their errors turned into the registry's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slm_registry.errors import AddressError, CorruptError, NoSpaceError, ReadOnlyError, UnreachableError, UsageError

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOWHERE = {errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
        if error.errno in _NOWHERE:
            raise AddressError(f"cannot {what} {path}: {reason}; check that the folder is there and is one") from error
        raise UnreachableError(f"cannot {what} {path}: {reason}; check the disk or the network it is on") from error


def expanded(named: str, remedy: str) -> Path:
    """A path, its ~ the user's home. Raises UsageError, with the remedy, where the system knows none."""
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{named}: {error}; {remedy}") from error


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


def changed(path: Path) -> CorruptError:
    """The error for a file that is not what it was when it was digested."""
    return CorruptError(f"{path}: the file changed while it was published; run it again")


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with open_regular(path) as file:
        os.fsync(file.fileno())


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


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all, in place of what stands there. Raises StoreError where it cannot be."""
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    with os_errors("write", path):
        make_folders(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def removed(path: Path) -> Iterator[None]:
    """Whatever is still at `path` afterwards, a file or a folder, goes."""
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
