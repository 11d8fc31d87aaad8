"""The local cache: verified blobs, and snapshots that are plain model folders.

<cache>/blobs/<hex>                                  a file's content, its name its digest
<cache>/blobs/<hex>.partial                          a download under way, or one that broke
<cache>/manifests/<hex>                              a version's manifest
<cache>/models/<model>/snapshots/<hex>/<file>        hard links to (or copies of) blobs; <hex> is the manifest's digest
<cache>/locks/                                       who uses what (eviction.py)
<cache>/stores/                                      what each store held when it last answered (offline.py)

Nothing appears under its final name before every byte of it was hashed. Nothing is synced to the disk: what a power cut
takes is found and fetched again, since every use verifies every byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from slm_registry.bundles.contents import check_bundle
from slm_registry.bundles.manifest import MAX_MANIFEST, BundleFile, Manifest, parse_manifest
from slm_registry.caching.eviction import Evictor, fetching, hold, size_limit
from slm_registry.errors import CorruptError, UsageError
from slm_registry.log.state import ModelState
from slm_registry.plumbing.destination import filled, vacant
from slm_registry.plumbing.files import expanded, make_folders, open_regular, os_errors, removed, replace_file
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.parallel import LANES, each
from slm_registry.plumbing.partial import hash_at, locked
from slm_registry.plumbing.progress import Moved, Progress, Silent
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import read_json_blob
from slm_registry.transfer.download import Download


def default_cache() -> Path:
    """$SLM_REGISTRY_CACHE, or ~/.cache/slm-registry."""
    named = os.environ.get("SLM_REGISTRY_CACHE") or "~/.cache/slm-registry"
    return expanded(named, "set SLM_REGISTRY_CACHE to a folder")


class Cache:
    """Fetches what it lacks from a store, piece by piece, and never gives out a byte it has not checked.

    `limit` bounds its size, in bytes (default: $SLM_REGISTRY_CACHE_SIZE, without one unbounded). A snapshot that was
    given out is in use, and safe from every process's eviction, until it was released as often, `close` or the end of
    this object.
    """

    def __init__(self, root: Path, store: Store, *, limit: int | None = None, progress: Progress | None = None) -> None:
        self.root = root.absolute()
        self._store = store
        self._limit = limit
        self._progress = progress or Silent()
        # By bare digest: the lock, and how many use what it guards.
        self._held: dict[str, tuple[IO[bytes], int]] = {}
        self._counting = threading.Lock()

    def close(self) -> None:
        """Give free what was in use."""
        with self._counting:
            while self._held:
                self._held.popitem()[1][0].close()

    def release(self, digest: str) -> None:
        """One that was given the snapshot with this manifest is done with it; the last one gives it free."""
        name = digest.removeprefix("sha256:")
        with self._counting:
            if name not in self._held:
                return
            lock, users = self._held.pop(name)
            if users > 1:
                self._held[name] = lock, users - 1
            else:
                lock.close()

    @contextlib.contextmanager
    def using(self, manifest: Manifest) -> Iterator[Path]:
        """As `snapshot`, in use only meanwhile."""
        folder = self.snapshot(manifest)
        try:
            yield folder
        finally:
            self.release(manifest.digest)

    def manifest(self, state: ModelState, version: str) -> Manifest:
        """The manifest of a published version, from here or from the store, and kept."""
        digest = state.versions[version].manifest
        path = self.root / "manifests" / digest.removeprefix("sha256:")
        with os_errors("read", path):
            data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_MANIFEST else b""
        if digest_of(data) != digest:
            data = read_json_blob(self._store, digest, MAX_MANIFEST, f"manifest of {state.model}@{version}")
            replace_file(path, data)
        return parse_manifest(data, state.model, version)

    def snapshot(self, manifest: Manifest) -> Path:
        """The folder with the files of a version, every one of them verified now.

        Raises CorruptError where the store cannot give the right bytes, or where foreign files lie in the folder.
        """
        name = manifest.digest.removeprefix("sha256:")
        folder = self.root / "models" / manifest.model / "snapshots" / name
        with os_errors("write", folder):
            if folder.is_symlink():
                raise CorruptError(f"{folder}: a folder was expected, found a link; remove it")
            self._hold(name)
            try:
                if not folder.is_dir():
                    self._build(manifest, folder)
                else:
                    self._verify(manifest, folder)
            except BaseException:
                self.release(manifest.digest)
                raise
        return folder

    def _hold(self, name: str) -> None:
        """Keep the snapshot from eviction. A cache that cannot be written to has nobody who evicts."""
        lock = hold(self.root, name)
        if lock is not None:
            with self._counting:
                former, users = self._held.get(name, (None, 0))
                self._held[name] = lock, users + 1
            if former is not None:
                former.close()

    def export(self, manifest: Manifest, into: Path) -> Path:
        """Copy a version's files into a folder that is new, empty, or holds exactly them already."""
        with self.using(manifest) as snapshot, os_errors("write", into):
            if not vacant(into):
                if _strangers(manifest, into) or any(not _holds(into / file.path, file) for file in manifest.files):
                    raise UsageError(f"{into} holds other files; name a new or an empty folder")
                return into
            with filled(into, last="config.json") as place:
                for file in manifest.files:
                    make_folders((place / file.path).parent)
                    shutil.copyfile(snapshot / file.path, place / file.path)
        return into

    def _build(self, manifest: Manifest, folder: Path) -> None:
        limit = size_limit(self._limit)
        if limit is not None:
            Evictor(self.root).evict(limit, room_for=self._missing(manifest))
        with fetching(self.root):
            blobs = self._blobs(manifest, manifest.files)
            temporary = self.root / ".tmp" / uuid.uuid4().hex
            make_folders(folder.parent)
            with removed(temporary):
                make_folders(temporary)
                for file in manifest.files:
                    _link(blobs[file.digest], temporary / file.path)
                # A publisher without scruples does not run this check, so the reader does.
                check_bundle(temporary)
                try:
                    temporary.rename(folder)
                except OSError:
                    # Another process was first, and its folder is as good once it is verified.
                    if not folder.is_dir():
                        raise
                    self._verify(manifest, folder)
        if limit is not None:
            Evictor(self.root).evict(limit)

    def _missing(self, manifest: Manifest) -> int:
        """How many bytes are to be fetched."""
        blobs = {file.digest: file.size for file in manifest.files}
        return sum(size for digest, size in blobs.items() if not self._blob_path(digest).exists())

    def _verify(self, manifest: Manifest, folder: Path) -> None:
        strangers = _strangers(manifest, folder)
        if strangers:
            raise CorruptError(f"{folder / strangers[0]}: not a file of {manifest.model}@{manifest.version}; remove it")
        sound = each(lambda file: _holds(folder / file.path, file), manifest.files, os.cpu_count() or 1)
        broken = [file for file, fine in zip(manifest.files, sound, strict=True) if not fine]
        if not broken:
            return
        with fetching(self.root):
            blobs = self._blobs(manifest, broken)
            for file in broken:
                temporary = self.root / ".tmp" / uuid.uuid4().hex
                _link(blobs[file.digest], temporary)
                with removed(temporary):
                    make_folders((folder / file.path).parent)
                    temporary.replace(folder / file.path)

    def _blobs(self, manifest: Manifest, files: Iterable[BundleFile]) -> dict[str, Path]:
        """A verified blob for each digest, from the cache or the store."""
        unique = {file.digest: file for file in files}
        small = [file for file in unique.values() if len(file.chunks) < 2]
        # The largest first: the last core at work is then soon done.
        large = sorted((file for file in unique.values() if len(file.chunks) > 1), key=lambda file: -file.size)
        # A core hashes each large file while the lanes fill it.
        at_once = max(1, min(len(large), os.cpu_count() or 1, LANES))
        with self._progress.task("download", sum(file.size for file in unique.values())) as moved:
            paths = each(lambda file: self._blob(manifest, file, moved, 1), small)
            paths += each(lambda file: self._blob(manifest, file, moved, LANES // at_once), large, at_once)
        return dict(zip([file.digest for file in small + large], paths, strict=True))

    def _blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / digest.removeprefix("sha256:")

    def _blob(self, manifest: Manifest, file: BundleFile, moved: Moved, lanes: int) -> Path:
        path = self._blob_path(file.digest)
        with os_errors("write", path):
            if _holds(path, file):
                moved(file.size)
                return path
            make_folders(path.parent)
            partial = path.with_name(path.name + ".partial")
            with locked(partial) as descriptor:
                if _holds(path, file):
                    partial.unlink()
                    return path
                if path.exists():
                    # Something in it rotted: what is still good is kept, and only the rest fetched.
                    with open_regular(path) as old, partial.open("r+b") as copy:
                        shutil.copyfileobj(old, copy)
                Download(self._store, file, manifest.chunk_size, descriptor, moved, lanes, manifest.form).run()
                # In this order: a partial file that is read-only could not be gone on with.
                partial.replace(path)
                os.fchmod(descriptor, 0o444)
        return path


def _holds(path: Path, file: BundleFile) -> bool:
    """Whether a plain file stands there with exactly these bytes."""
    try:
        with open_regular(path) as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                return False
            return hash_at(opened.fileno(), 0, file.size) == file.digest.removeprefix("sha256:")
    except (FileNotFoundError, NotADirectoryError):
        return False


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
