"""Blobs: bytes under the digest of their content, brought into a store and read back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from slm_registry.bundles.manifest import MAX_MANIFEST, BundleFile, Manifest, parse_manifest
from slm_registry.errors import CorruptError
from slm_registry.log.state import ModelState
from slm_registry.plumbing.hashing import CHUNK, FileDigests, digest_of
from slm_registry.plumbing.parallel import each
from slm_registry.plumbing.progress import Moved, Progress, Silent
from slm_registry.stores.base import Store

# Large files under way side by side: while one is begun or completed, the parts of the others go on.
_AT_ONCE = 4


def blob_key(digest: str) -> str:
    """Where the bytes with this digest lie."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def intact(store: Store, digest: str, size: int) -> bool:
    """Whether the store holds these bytes, by reading them back: a store's own checksum is only its word."""
    key = blob_key(digest)
    if store.size(key) != size:
        return False
    hasher = hashlib.sha256()
    for block in store.stream(key, 0, size):
        hasher.update(block)
    return "sha256:" + hasher.hexdigest() == digest


def read_manifest(store: Store, state: ModelState, version: str) -> Manifest:
    """The manifest of a published version. Raises CorruptError where it is missing or altered."""
    digest = state.versions[version].manifest
    data = read_json_blob(store, digest, MAX_MANIFEST, f"manifest of {state.model}@{version}")
    return parse_manifest(data, state.model, version)


def read_json_blob(store: Store, digest: str, limit: int, what: str) -> bytes:
    """A small blob, checked; asked for a second time where the first answer is not what its name says."""
    for _ in range(2):
        data = store.get(blob_key(digest), limit)
        if data is not None and digest_of(data) == digest:
            return data
    state = "missing" if data is None else "altered"
    raise CorruptError(f"{what}: {store.url}: {blob_key(digest)} is {state}; publish the version again to repair it")


def upload(
    store: Store,
    folder: Path,
    files: Sequence[BundleFile],
    small: Sequence[bytes],
    *,
    chunk_size: int = CHUNK,
    trusted: Collection[str] = (),
    progress: Progress | None = None,
) -> None:
    """Bring every blob of a version into the store: its files, then its small JSON blobs, in their order.

    A blob that is there with the right size is left alone where its digest is among `trusted` (a committed manifest of
    this store refers to it), and read back otherwise. Raises CorruptError where what was written reads back altered.
    """
    unique = list({file.digest: file for file in files}.values())
    held = each(lambda file: _is_held(store, file, trusted), unique)
    missing = [file for file, there in zip(unique, held, strict=True) if not there]
    with (progress or Silent()).task("upload", sum(file.size for file in missing)) as moved:

        def put(file: BundleFile) -> None:
            _put(store, folder, file, chunk_size, moved)

        each(put, [file for file in missing if len(file.chunks) < 2])
        # The largest first: what is left at the end is then small. A store bounds how many parts are in memory.
        each(put, sorted((file for file in missing if len(file.chunks) > 1), key=lambda file: -file.size), _AT_ONCE)
    for data in small:
        _put_small(store, data)


def _is_held(store: Store, file: BundleFile, trusted: Collection[str]) -> bool:
    if file.digest in trusted:
        return store.size(blob_key(file.digest)) == file.size
    return intact(store, file.digest, file.size)


def _put(store: Store, folder: Path, file: BundleFile, chunk_size: int, moved: Moved) -> None:
    key = blob_key(file.digest)
    digests = FileDigests(file.size, file.digest, file.chunks, chunk_size, file.checksums)
    checked = store.put_blob(key, folder / file.path, file.digest.removeprefix("sha256:"), digests, moved)
    if not checked and not intact(store, file.digest, file.size):
        raise CorruptError(f"{store.url}: {key} ({file.path}) reads back altered; run it again")


def _put_small(store: Store, data: bytes) -> None:
    key = blob_key(digest_of(data))
    if not _reads(store, key, data):
        store.put(key, data)
        if not _reads(store, key, data):
            raise CorruptError(f"{store.url}: {key} reads back altered; run it again")


def _reads(store: Store, key: str, data: bytes) -> bool:
    """Whether exactly these bytes stand there; what is longer, or no plain file, is something else."""
    try:
        return store.get(key, len(data)) == data
    except CorruptError:
        return False
