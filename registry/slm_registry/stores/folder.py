"""The store that is a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from slm_registry.errors import CorruptError, StoreError, UsageError
from slm_registry.names import check_key
from slm_registry.plumbing.files import changed, make_folders, open_regular, os_errors, sync_file, sync_folder
from slm_registry.plumbing.hashing import FileDigests, digest_file, read_blocks
from slm_registry.plumbing.partial import blocks_at, copy_at, locked, write_at
from slm_registry.plumbing.progress import Moved, ignore
from slm_registry.stores.items import Item

# Below a file there is nothing, just as below a folder that is missing.
_ABSENT = (FileNotFoundError, NotADirectoryError)
_TEMPORARY = ".tmp"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class Copy:
    """A file being copied into the store while somebody else digests it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.digest = ""
        self._file = file

    def write(self, block: bytes) -> None:
        """Append to the copy."""
        with os_errors("write", self.path):
            self._file.write(block)

    def keep(self, digest: str) -> None:
        """Say what was written; without this the copy is removed."""
        self.digest = digest.removeprefix("sha256:")


class FolderStore:
    """A store in a folder of a local or network file system that has hard links."""

    def __init__(self, root: Path) -> None:
        """Raises UsageError where no folder can be called so."""
        if "\0" in str(root):
            raise UsageError(f"store {str(root)!r}: a folder's name holds no zero byte")
        self.root = root.absolute()
        self.url = str(root)
        self.identity = f"file://{os.path.normpath(self.root)}"
        # Copies made while their files were digested, by bare digest (see `copying`).
        self._copies: dict[str, Path] = {}

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

    def copy_range(self, key: str, start: int, end: int, target: int) -> int:
        """Copy a stretch of an object to the same place in an open file without its bytes passing here; how many there were."""
        path = self._path(key)
        with os_errors("read", path):
            try:
                with open_regular(path) as file:
                    return copy_at(file.fileno(), target, start, end)
            except _ABSENT:
                return 0

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

    def put_blob(
        self,
        key: str,
        source: Path,
        hex_digest: str,
        digests: FileDigests | None = None,
        moved: Moved = ignore,
    ) -> bool:
        target = self._path(key)
        copy = self._copies.pop(hex_digest, None)
        if copy is not None:
            with os_errors("write", target):
                sync_file(copy)
                self._move(copy, target)
                moved(target.stat().st_size)
            return True
        with os_errors("read", source):
            opened = open_regular(source)
        with opened, os_errors("write", target):
            known = digests or digest_file(opened)
            if known.digest != f"sha256:{hex_digest}":
                raise changed(source)
            folder = self.root / ".tmp"
            make_folders(folder)
            path = folder / f"{hex_digest}.partial"
            with locked(path) as descriptor:
                if _fill(opened.fileno(), descriptor, moved) != hex_digest:
                    raise changed(source)
                os.fsync(descriptor)
                self._move(path, target)
        # Each block was hashed in the memory that it was written from; to read it back would ask that memory again.
        return True

    @contextlib.contextmanager
    def copying(self) -> Iterator[Callable[[], contextlib.AbstractContextManager[Copy]]]:
        """For as long as this lasts, files can be copied beside the data while they are digested; `put_blob` then only
        moves such a copy to its name. What no blob became of is removed at the end."""
        made: list[Copy] = []

        @contextlib.contextmanager
        def one() -> Iterator[Copy]:
            with os_errors("write", self.root), self._temporary() as (path, file):
                copy = Copy(path, file)
                yield copy
                file.flush()
                if copy.digest and copy.digest not in self._copies:
                    copied = path.rename(path.with_suffix(".copy"))
                    # Of two files with one content, digested at one moment, one copy is enough.
                    if self._copies.setdefault(copy.digest, copied) is copied:
                        made.append(copy)
                    else:
                        copied.unlink()

        try:
            yield one
        finally:
            for copy in made:
                # What was taken by put_blob, for whichever file of this content, is no longer ours.
                left = self._copies.pop(copy.digest, None)
                if left is not None:
                    left.unlink(missing_ok=True)

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

    def listing(self, prefix: str) -> Iterator[Item]:
        yield from _items(self._path(prefix), prefix)

    def unfinished(self, before: float, *, remove: bool) -> list[Item]:
        found = [item for item in _items(self.root / _TEMPORARY, _TEMPORARY) if item.modified < before]
        for item in found if remove else ():
            with os_errors("remove", self.root / item.key):
                (self.root / item.key).unlink(missing_ok=True)
        return found

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
        folder = self.root / _TEMPORARY
        make_folders(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)


def _items(folder: Path, prefix: str) -> Iterator[Item]:
    """The plain files of a folder; one that goes away meanwhile is not among them."""
    with os_errors("list", folder):
        try:
            entries = list(os.scandir(folder))
        except _ABSENT:
            return
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(state.st_mode) and not entry.name.startswith("."):
                yield Item(f"{prefix}/{entry.name}", state.st_size, state.st_mtime)


def _fill(source: int, target: int, moved: Moved) -> str:
    """Bring an open file to the bytes of another, writing only what is not there from an earlier run; their bare digest."""
    hasher, start, begun = hashlib.sha256(), 0, os.fstat(target).st_size
    for block in blocks_at(source, 0, os.fstat(source).st_size):
        hasher.update(block)
        if start >= begun or os.pread(target, len(block), start) != block:
            write_at(target, block, start)
        start += len(block)
        moved(len(block))
    os.ftruncate(target, start)
    return hasher.hexdigest()


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
