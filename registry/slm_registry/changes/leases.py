"""Publishers and garbage collections tell each other what they are at, and neither needs a clock or a lock for it.

A publisher writes its lease and then looks for sweeps; a collection announces its sweep and then looks for leases, and
after them for log entries. Of the two, the one that looks second sees the other: a collection leaves alone what a lease
names, and a publisher waits for the end of a sweep that may have missed its lease before it looks which blobs are there.

A lease or a sweep whose owner died is void once it is older than its life, both ages by the store's own clock. A
collection renews its sweep while it walks the logs, and removes nothing under one that was void at any time. The life is
the one bound on it all: a process that sleeps for longer between its last renewal and a removal is not protected.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slm_registry import names
from slm_registry.errors import ConflictError, CorruptError, StoreError
from slm_registry.plumbing.jsonio import MAX_BYTES, canonical, parse_object
from slm_registry.stores.base import Store

logger = logging.getLogger("slm_registry")
LEASE_LIFE = 24 * 3600.0
SWEEP_LIFE = 3600.0
# A lease or a sweep of this many blobs is within what is read of one.
MAX_BLOBS = 10_002
_PATIENCE = 240
_LEASES, _SWEEPS = "leases", "gc/sweeps"


@dataclass(frozen=True, slots=True)
class Leases:
    """What publishers at work need, and the keys of the leases that ran out."""

    blobs: frozenset[str]
    expired: tuple[str, ...]


class Lease:
    """A publisher's word that some blobs are about to be referenced."""

    def __init__(self, store: Store, model: str, actor: str, blobs: Iterable[str]) -> None:
        self._store = store
        self._blobs = frozenset(blobs)
        self._value = {"format": 1, "model": model, "actor": actor, "blobs": sorted(self._blobs)}
        self._key = ""

    def take(self) -> None:
        """Write the lease; afterwards no collection removes any of the blobs, whether they are there yet or not.

        Raises ConflictError where a collection that may not have seen it goes on for too long.
        """
        self._write()
        self._outlast_sweeps()

    def lapsed(self) -> bool:
        """Renew the lease before the commit. True where it had run out: look again which blobs are there."""
        former = self._key
        # A new key: a collection that saw the old one run out may be about to remove it.
        self._write()
        try:
            self._outlast_sweeps()
            # Asked after the wait, since a collection removes a lease that ran out before it removes any blob.
            return self._store.size(former) is None
        finally:
            self._remove(former)

    def drop(self) -> None:
        """Give the lease back."""
        if self._key:
            self._remove(self._key)

    def _write(self) -> None:
        key = f"{_LEASES}/{uuid.uuid4().hex}.json"
        if not self._store.create(key, canonical({**self._value, "at": _now()})):
            raise StoreError(f"{self._store.url}: the lease {key} exists already; run it again")
        self._key = key

    def _remove(self, key: str) -> None:
        try:
            self._store.delete(key)
        except StoreError as error:
            # It expires by itself, and must not hide what happened under it.
            logger.warning("the lease %s was not removed: %s", key, error)

    def _outlast_sweeps(self) -> None:
        for _ in range(_PATIENCE):
            threat = self._threat()
            if threat is None:
                return
            _pause()
        raise ConflictError(
            f"{self._store.url}: a garbage collection ({threat}) is removing blobs that this version needs; run it "
            f"again when it is done (where it has died, it counts no more after {SWEEP_LIFE / 60:.0f} minutes)"
        )

    def _threat(self) -> str | None:
        """The key of a sweep under way that names one of the blobs."""
        for item in self._store.listing(_SWEEPS):
            if self._taken_at() - item.modified >= SWEEP_LIFE:
                continue
            data = self._store.get(item.key, MAX_BYTES)
            if data is not None and not self._blobs.isdisjoint(_blobs_in(data, f"{self._store.url}: {item.key}")):
                return item.key
        return None

    def _taken_at(self) -> float:
        """When this lease was written, by the store's clock. Without it in the listing every sweep counts."""
        return next((item.modified for item in self._store.listing(_LEASES) if item.key == self._key), 0.0)


@contextlib.contextmanager
def held(store: Store, model: str, actor: str, blobs: Iterable[str]) -> Iterator[Lease]:
    """A lease taken, and given back whatever happens."""
    lease = Lease(store, model, actor, blobs)
    try:
        lease.take()
        yield lease
    finally:
        lease.drop()


def read_leases(store: Store, now: float) -> Leases:
    """The leases at the store's time `now`. Raises CorruptError for one that stands and cannot be read."""
    blobs: set[str] = set()
    expired = []
    for item in store.listing(_LEASES):
        if now - item.modified >= LEASE_LIFE:
            expired.append(item.key)
            continue
        data = store.get(item.key, MAX_BYTES)
        if data is not None:
            blobs.update(_blobs_in(data, f"{store.url}: {item.key}"))
    return Leases(frozenset(blobs), tuple(sorted(expired)))


class Sweep:
    """A collection's announcement of the blobs that it may remove."""

    def __init__(self, store: Store, actor: str, blobs: Iterable[str]) -> None:
        self._store = store
        self.key = f"{_SWEEPS}/{uuid.uuid4().hex}.json"
        self._data = canonical({"format": 1, "actor": actor, "at": _now(), "blobs": sorted(blobs)})
        # Says when to renew, and no more: how old the sweep is the store says.
        self._renewed = time.monotonic()

    def announce(self) -> None:
        """Write it."""
        if not self._store.create(self.key, self._data):
            raise StoreError(f"{self._store.url}: the sweep {self.key} exists already; run it again")

    def keep(self) -> None:
        """Renew it where that was not done for a while; see `renew`."""
        if time.monotonic() - self._renewed >= SWEEP_LIFE / 12:
            self.renew()

    def renew(self) -> None:
        """Make it young again. Raises ConflictError where it is gone or was void before, and with it the right to remove
        anything: a publisher may have passed it by."""
        former = self._written_at()
        if former is None:
            raise ConflictError(f"{self._store.url}: {self.key} is gone, another collection took over; run it again")
        self._store.put(self.key, self._data)
        written = self._written_at()
        if written is None or written - former >= SWEEP_LIFE:
            raise ConflictError(
                f"{self._store.url}: {self.key} was not renewed for {SWEEP_LIFE:.0f} s, and publishers passed it by; "
                "run it again"
            )
        self._renewed = time.monotonic()

    def end(self) -> None:
        """Take it back: nothing is removed under it any more."""
        self._store.delete(self.key)

    def _written_at(self) -> float | None:
        """When it was last written, by the store's clock; None where it is gone."""
        return next((item.modified for item in self._store.listing(_SWEEPS) if item.key == self.key), None)


def void_sweeps(store: Store, now: float) -> tuple[str, ...]:
    """The keys of sweeps whose collection died, at the store's time `now`."""
    return tuple(sorted(item.key for item in store.listing(_SWEEPS) if now - item.modified >= SWEEP_LIFE))


def _blobs_in(data: bytes, what: str) -> frozenset[str]:
    blobs = parse_object(data, what).get("blobs")
    if not isinstance(blobs, list) or not all(isinstance(blob, str) and names.is_digest(blob) for blob in blobs):
        raise CorruptError(f"{what}: it names no blobs; it was written by something else, look at it and remove it")
    return frozenset(blobs)


def _now() -> str:
    """For people who look at it; nothing is decided by it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _pause() -> None:
    time.sleep(random.uniform(0.25, 0.75))
