"""The local cache: verified blobs, and snapshots that are plain model folders.

<cache>/blobs/<hex>                                  a file's content, its name its digest
<cache>/blobs/<hex>.partial                          a download under way, or one that broke
<cache>/models/<model>/snapshots/<hex>/<file>        hard links to (or copies of) blobs; <hex> is the manifest's digest

Nothing appears under its final name before every byte of it was hashed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slm_registry.blobs import blob_key
from slm_registry.bundle import check_bundle
from slm_registry.errors import CorruptError, UsageError
from slm_registry.files import make_folders, open_regular, os_errors
from slm_registry.hashing import digest_file, read_blocks
from slm_registry.manifest import BundleFile, Manifest
from slm_registry.stores import Store


def default_cache() -> Path:
    """$SLM_REGISTRY_CACHE, or ~/.cache/slm-registry."""
    named = os.environ.get("SLM_REGISTRY_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "slm-registry"


class Cache:
    """Fetches what it lacks from a store, piece by piece, and never gives out a byte it has not checked."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root.absolute()
        self._store = store

    def snapshot(self, manifest: Manifest) -> Path:
        """The folder with the files of a version, every one of them verified now.

        Raises CorruptError where the store cannot give the right bytes, or where foreign files lie in the folder.
        """
        folder = self.root / "models" / manifest.model / "snapshots" / manifest.digest.removeprefix("sha256:")
        with os_errors("write", folder):
            if folder.is_symlink():
                raise CorruptError(f"{folder}: a folder was expected, found a link; remove it")
            if not folder.is_dir():
                self._build(manifest, folder)
            else:
                self._verify(manifest, folder)
        return folder

    def export(self, manifest: Manifest, into: Path) -> Path:
        """Copy a version's files into a folder that is new, empty, or holds exactly them already."""
        snapshot = self.snapshot(manifest)
        with os_errors("write", into):
            if into.is_symlink() or (into.exists() and not into.is_dir()):
                raise UsageError(f"{into} is not a folder; name a new or an empty one")
            if into.is_dir() and any(into.iterdir()):
                if _strangers(manifest, into) or any(not _holds(into / file.path, file) for file in manifest.files):
                    raise UsageError(f"{into} holds other files; name a new or an empty folder")
                return into
            make_folders(into.absolute().parent)
            temporary = into.absolute().parent / f".{into.name}.{uuid.uuid4().hex}"
            with _removed(temporary):
                shutil.copytree(snapshot, temporary, copy_function=shutil.copyfile)
                # Over an empty folder this replaces it; over one that was filled meanwhile it fails.
                temporary.rename(into)
        return into

    def _build(self, manifest: Manifest, folder: Path) -> None:
        blobs = [(file, self._blob(manifest, file)) for file in manifest.files]
        temporary = self.root / ".tmp" / uuid.uuid4().hex
        make_folders(folder.parent)
        with _removed(temporary):
            make_folders(temporary)
            for file, blob in blobs:
                _link(blob, temporary / file.path)
            # A publisher without scruples does not run this check, so the reader does.
            check_bundle(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                # Another process was first, and its folder is as good once it is verified.
                if not folder.is_dir():
                    raise
                self._verify(manifest, folder)

    def _verify(self, manifest: Manifest, folder: Path) -> None:
        strangers = _strangers(manifest, folder)
        if strangers:
            raise CorruptError(f"{folder / strangers[0]}: not a file of {manifest.model}@{manifest.version}; remove it")
        for file in manifest.files:
            if not _holds(folder / file.path, file):
                blob = self._blob(manifest, file)
                temporary = self.root / ".tmp" / uuid.uuid4().hex
                _link(blob, temporary)
                with _removed(temporary):
                    make_folders((folder / file.path).parent)
                    temporary.replace(folder / file.path)

    def _blob(self, manifest: Manifest, file: BundleFile) -> Path:
        """A verified blob, from the cache or the store."""
        path = self.root / "blobs" / file.digest.removeprefix("sha256:")
        if _holds(path, file):
            return path
        make_folders(path.parent)
        with _locked(path.with_name(path.name + ".partial")) as (partial, opened):
            if _holds(path, file):
                partial.unlink()
                return path
            if path.exists():
                # Something in it rotted: what is still good is kept, and only the rest fetched.
                with open_regular(path) as old:
                    shutil.copyfileobj(old, opened)
            self._complete(manifest, file, opened)
            os.fchmod(opened.fileno(), 0o444)
            partial.replace(path)
        return path

    def _complete(self, manifest: Manifest, file: BundleFile, opened: BinaryIO) -> None:
        """Bring a partial file to the right bytes: each chunk that is not right yet is fetched."""
        size = manifest.chunk_size
        for index, chunk in enumerate(file.chunks):
            start, end = index * size, min((index + 1) * size, file.size)
            opened.seek(start)
            if _hash(read_blocks(opened, end - start)) != chunk:
                self._fetch(file, index, (start, end), opened)
        opened.truncate(file.size)
        opened.flush()
        os.fsync(opened.fileno())
        opened.seek(0)
        # Of a single chunk the manifest's parser knows that it is the whole.
        if len(file.chunks) > 1 and digest_file(opened, size).digest != file.digest:
            raise CorruptError(f"{file.path}: chunks right but the whole not {file.digest}: a false manifest")

    def _fetch(self, file: BundleFile, index: int, span: tuple[int, int], opened: BinaryIO) -> None:
        """Fetch one chunk; once more where what came is not what the manifest says."""
        start, end = span
        key = blob_key(file.digest)
        for _ in range(2):
            opened.seek(start)
            hasher = hashlib.sha256()
            for block in self._store.stream(key, start, end):
                hasher.update(block)
                opened.write(block)
            if hasher.hexdigest() == file.chunks[index]:
                return
        raise CorruptError(
            f"{file.path}: chunk {index} (bytes {start} to {end - 1}) is missing or altered in "
            f"{self._store.url} ({key}); publish the same files again to repair it"
        )


def _holds(path: Path, file: BundleFile) -> bool:
    """Whether a plain file stands there with exactly these bytes."""
    try:
        with open_regular(path) as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                return False
            return _hash(read_blocks(opened)) == file.digest.removeprefix("sha256:")
    except (FileNotFoundError, NotADirectoryError):
        return False


def _hash(blocks: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for block in blocks:
        hasher.update(block)
    return hasher.hexdigest()


def _strangers(manifest: Manifest, folder: Path) -> list[str]:
    """What stands in a folder and is neither a file of the version nor a folder above one."""
    expected = {Path(file.path) for file in manifest.files}
    expected |= {parent for path in expected for parent in path.parents}
    return sorted(
        found.as_posix()
        for path in folder.rglob("*")
        if (found := path.relative_to(folder)) not in expected or (path.is_symlink() and path.is_dir())
    )


def _link(blob: Path, target: Path) -> None:
    """Make a blob appear at another path too: as a hard link, or as a copy where links do not reach."""
    make_folders(target.parent)
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A partial file, opened, that no other process works on."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            if _still_at(path, descriptor):
                yield path, opened
                return


def _still_at(path: Path, descriptor: int) -> bool:
    """Whether a locked file is still there under its name: its former owner may have finished and moved it away."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    """Whatever is still at `path` afterwards goes."""
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
