"""The store that is a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slm_registry.errors import CorruptError, StoreError
from slm_registry.files import make_folders, open_regular, os_errors, sync_folder
from slm_registry.hashing import read_blocks
from slm_registry.items import Item
from slm_registry.names import check_key

# Below a file there is nothing, just as below a folder that is missing.
_ABSENT = (FileNotFoundError, NotADirectoryError)
_TEMPORARY = ".tmp"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class FolderStore:
    """A store in a folder of a local or network file system that has hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(root)
        self.identity = f"file://{os.path.normpath(self.root)}"

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


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
