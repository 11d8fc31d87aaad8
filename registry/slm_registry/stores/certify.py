"""Whether a store keeps what the protocol needs: probes that write under `certify/`, and remove what they wrote.

Some S3 look-alikes ignore the condition of a create-only write and accept them all: two publishers then both believe
that they won, and one version is lost without a word. Such a store must be found out before it holds a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

from slm_registry.errors import RegistryError
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore

if TYPE_CHECKING:
    from slm_registry.stores.s3 import S3Store

logger = logging.getLogger("slm_registry")
RACERS = 16
RACES = 4
_LIMIT = 1 << 20


class _Lie(Exception):
    """What a store did that it must not do."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was looked at: `held` says whether the store keeps it, `found` what was seen."""

    name: str
    held: bool
    found: str


@dataclass(frozen=True, slots=True)
class Report:
    """What certify found. `notes` are traits that cost nothing of what the protocol promises."""

    url: str
    probes: tuple[Probe, ...]
    notes: tuple[str, ...]

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the store is not fit for a registry; empty where it is."""
        return tuple(f"{probe.name}: {probe.found}" for probe in self.probes if not probe.held)


@dataclass(slots=True)
class _Ground:
    """The store under test, a corner of it that nobody else uses, and the keys that were written there."""

    store: Store
    root: str
    written: list[str] = field(default_factory=list)
    versioned: bool = False

    def key(self, name: str) -> str:
        """A new key; it is removed at the end."""
        key = f"{self.root}/{name}-{len(self.written)}"
        self.written.append(key)
        return key


def certify(store: Store) -> Report:
    """Probe a store for what the protocol needs, and leave nothing behind.

    Raises StoreError where the store cannot be used at all (no bucket, no credentials, read-only).
    """
    ground = _Ground(store, f"certify/{uuid.uuid4().hex}")
    with _cleaned(ground):
        # The first write tells an unusable store from a lying one: its error is the caller's.
        store.put(ground.key("first"), b"first")
        notes = _traits(ground)
        probes = tuple(_blamed(_tried(name, probe, ground), ground.versioned) for name, probe in _PROBES)
    return Report(store.url, probes, notes)


def _tried(name: str, probe: Callable[[_Ground], str], ground: _Ground) -> Probe:
    try:
        return Probe(name, True, probe(ground))
    except _Lie as lie:
        return Probe(name, False, str(lie))
    except RegistryError as error:
        return Probe(name, False, f"it failed: {error}")


def _need(kept: bool, lie: str) -> None:
    if not kept:
        raise _Lie(lie)


def _create_only(ground: _Ground) -> str:
    """A second create of one key, with other bytes, must be told that it lost."""
    key = ground.key("create")
    _need(ground.store.create(key, b"first"), "a create of a key that does not exist was refused")
    again = ground.store.create(key, b"second")
    _need(not again, "a create of a key that exists was accepted: the store ignores If-None-Match and overwrites")
    _need(ground.store.get(key, _LIMIT) == b"first", "a refused create changed the object")
    return "a create of a key that exists is refused"


def _race(ground: _Ground) -> str:
    """Many writers at one moment: one is told that it won, and the key holds its bytes."""
    for _ in range(RACES):
        key, barrier = ground.key("race"), Barrier(RACERS)

        def run(number: int, key: str = key, barrier: Barrier = barrier) -> bool:
            barrier.wait()
            return ground.store.create(key, f"writer {number}".encode())

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(run, range(RACERS)))
        _need(won.count(True) == 1, f"{won.count(True)} of {RACERS} writers were told that they created one key")
        winner = f"writer {won.index(True)}".encode()
        _need(ground.store.get(key, _LIMIT) == winner, "the key does not hold the bytes of the writer who won")
    return f"{RACES} races of {RACERS} writers had one winner each"


def _read_after_write(ground: _Ground) -> str:
    key = ground.key("read")
    _need(ground.store.get(key, _LIMIT) is None, "a key that was never written is there")
    for number in range(20):
        data = f"{number}".encode() * (number + 1)
        ground.store.put(key, data)
        found = ground.store.get(key, _LIMIT)
        _need(found == data, "a read right after a write does not give what was written")
        _need(ground.store.size(key) == len(data), "the size right after a write is not that of what was written")
    return "20 of 20 reads right after a write gave what was written"


def _list_after_write(ground: _Ground) -> str:
    folder = ground.key("list")
    ground.written.pop()
    wanted = [f"{number:02d}" for number in range(5)]
    for name in wanted:
        ground.written.append(f"{folder}/{name}")
        ground.store.put(f"{folder}/{name}", b"x")
        _need(name in ground.store.children(folder), "a listing right after a write lacks what was written")
    _need(ground.store.children(folder) == wanted, "a listing gives other names than were written")
    return "each key is listed as soon as it is written"


def _range_reads(ground: _Ground) -> str:
    data = os.urandom(_LIMIT)
    key = ground.key("range")
    ground.store.put(key, data)
    for start, end in ((0, 1), (1, 2), (4095, 4097), (3, _LIMIT - 3), (_LIMIT - 1, _LIMIT), (0, _LIMIT)):
        found = b"".join(ground.store.stream(key, start, end))
        _need(found == data[start:end], f"bytes {start} to {end - 1} of an object are not what was written there")
    _need(not b"".join(ground.store.stream(key, _LIMIT, _LIMIT + 9)), "there are bytes behind an object's end")
    return "ranges of an object are read exactly"


def _blob(ground: _Ground) -> str:
    """A file by its digest, as publish writes it, read back whole."""
    data = os.urandom(_LIMIT)
    digest = hashlib.sha256(data).hexdigest()
    key = ground.key("blob")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "blob"
        source.write_bytes(data)
        ground.store.put_blob(key, source, digest)
    _need(b"".join(ground.store.stream(key, 0, len(data))) == data, "a file reads back altered")
    return "a file of 1 MiB reads back with its digest"


def _delete(ground: _Ground) -> str:
    key = ground.key("delete")
    _need(ground.store.create(key, b"first"), "a create of a key that does not exist was refused")
    ground.store.delete(key)
    _need(ground.store.get(key, _LIMIT) is None, "a key is still there right after it was removed")
    ground.store.delete(key)
    _need(ground.store.create(key, b"second"), "a removed key cannot be created again")
    return "what is removed is gone, and may be created again"


_PROBES: tuple[tuple[str, Callable[[_Ground], str]], ...] = (
    ("create-only", _create_only),
    ("race", _race),
    ("read-after-write", _read_after_write),
    ("list-after-write", _list_after_write),
    ("range reads", _range_reads),
    ("blob", _blob),
    ("delete", _delete),
)
_CONDITIONED = ("create-only", "race")
_VERSIONED = "the bucket is versioned, and there this server ignores the condition: use a bucket without versioning"


def _blamed(probe: Probe, versioned: bool) -> Probe:
    """A probe with the reason added, where versioning is why it failed."""
    if probe.held or not versioned or probe.name not in _CONDITIONED:
        return probe
    return replace(probe, found=f"{probe.found}; {_VERSIONED}")


def _traits(ground: _Ground) -> tuple[str, ...]:
    """Notes on a bucket; on the way it is found out whether it is a versioned one."""
    bucket = _bucket(ground.store)
    if bucket is None:
        return ()
    from slm_registry.stores import s3traits

    ground.versioned = s3traits.is_versioned(bucket, ground.written[0])
    verified = ", ".join(s3traits.verified_checksums(bucket, ground.key("checksum"))) or "none"
    notes = [f"checksums that the server verifies: {verified}; publish reads back whatever it uploads"]
    if ground.versioned:
        notes.append("the bucket is versioned: what is deleted stays there and is paid for; add a lifecycle rule")
    return tuple(notes)


def _bucket(store: Store) -> S3Store | None:
    """The store, if it is a bucket; boto3 stays unimported if it is not."""
    if isinstance(store, FolderStore):
        return None
    from slm_registry.stores.s3 import S3Store

    return store if isinstance(store, S3Store) else None


@contextlib.contextmanager
def _cleaned(ground: _Ground) -> Iterator[None]:
    """What was written goes, whatever happened."""
    fresh = isinstance(ground.store, FolderStore) and not ground.store.root.exists()
    try:
        yield
    finally:
        try:
            _clean(ground, fresh)
        except RegistryError as error:
            # It must not hide what was found, and what is left is in nobody's way.
            logger.warning("%s: %s was not removed: %s", ground.store.url, ground.root, error)


def _clean(ground: _Ground, fresh: bool) -> None:
    for key in ground.written:
        ground.store.delete(key)
    bucket = _bucket(ground.store)
    if bucket is not None and ground.versioned:
        from slm_registry.stores import s3traits

        s3traits.remove_versions(bucket, ground.root)
    elif isinstance(ground.store, FolderStore):
        root = ground.store.root
        folders = [*sorted((root / ground.root).rglob("*"), reverse=True), root / ground.root, root / "certify"]
        for folder in [*folders, *([root / ".tmp", root] if fresh else [])]:
            # Somebody else may be at work in it.
            with contextlib.suppress(OSError):
                folder.rmdir()
