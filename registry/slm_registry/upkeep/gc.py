"""Garbage collection: removes the blobs that nothing refers to, which publishes that never ended left behind.

A blob goes only if no log entry leads to it, no lease names it, it is older than the grace period, and an earlier
collection had marked it. The signatures over a manifest go with it. Ages are the store's own, taken from its listings;
what time it is by that clock is learnt from an object written for it. How a collection and a publisher keep out of each
other's way is told in `leases`.

gc/candidates.json         the first mark: its own age says when it was made
gc/sweeps/<id>.json        a collection at work, and what it may remove
gc/log/<number>.json       what was removed: written once each, before the first blob goes, with the digest of the one before
gc/clock.json              written to learn the store's time
"""

from __future__ import annotations

import contextlib
import datetime
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slm_registry import names
from slm_registry.changes import leases
from slm_registry.errors import ConflictError, CorruptError, UnreachableError, UsageError
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import MAX_BYTES, canonical, parse_object
from slm_registry.stores.base import Store
from slm_registry.stores.items import Item
from slm_registry.transfer.blobs import blob_key
from slm_registry.trust.memory import Witness
from slm_registry.trust.signatures import SIGNATURES, signature_folder
from slm_registry.upkeep.references import live_blobs, model_names

GRACE = 7 * 24 * 3600.0
# Between the marks there is a day, or the grace period where that is shorter.
_BETWEEN = 24 * 3600.0
_MARK, _CLOCK, _LOG = "gc/candidates.json", "gc/clock.json", "gc/log"
FORMAT = 1
_MAX_MARK = 64 << 20
# Bytes of a digest in it, with quotes and comma, and of what stands around them all.
_MARK_EACH, _MARK_FRAME = 74, 64
_RENEW_EVERY = 10
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did or, where `deleted` is False, would do.

    `removed` are blobs; `marked` waits for its second mark, `unmarked` for its first.
    """

    deleted: bool
    removed: tuple[Item, ...]
    marked: tuple[Item, ...]
    unmarked: tuple[Item, ...]
    kept: int
    leases: tuple[str, ...]
    sweeps: tuple[str, ...]
    unfinished: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class _Survey:
    """The store as a collection finds it: its time, its old blobs by digest, and those of them that an earlier mark
    names. `ripe` says whether that mark is old enough to act on, or missing, and a new one is due."""

    now: float
    old: Mapping[str, Item]
    total: int
    marked: frozenset[str]
    ripe: bool


def collect(
    store: Store, actor: str, *, grace: float = GRACE, delete: bool = False, witness: Witness | None = None
) -> Collected:
    """Remove what is garbage at its second mark, and mark what is at its first; without `delete`, only tell.

    `grace` is in seconds. Raises CorruptError, having removed nothing, where a log or a manifest is damaged, or a log
    does not continue what the witness saw of it.
    """
    if not 0 <= grace < math.inf:
        raise UsageError(f"grace period of {grace} s: give a time of 0 or more")
    if witness is not None:
        for model in sorted({*model_names(store), *witness.models()}):
            witness.head(model)
    survey = _survey(store, grace)
    condemned = sorted(survey.marked & survey.old.keys())[: leases.MAX_BLOBS] if survey.ripe else []
    marked = survey.marked
    with _announced(store, actor, condemned if delete else []) as sweep:
        # In this order: a publisher drops its lease when its log entry stands.
        held = leases.read_leases(store, survey.now)
        free = survey.old.keys() - held.blobs
        free -= live_blobs(store) if sweep is None else live_blobs(store, sweep.keep)
        going = [digest for digest in condemned if digest in free]
        void = leases.void_sweeps(store, survey.now)
        unfinished = store.unfinished(survey.now - grace, remove=delete)
        if delete:
            # Expired leases before any blob: a publisher that still finds its lease has lost nothing.
            for key in (*held.expired, *void):
                store.delete(key)
            if sweep is not None and going:
                sweep.renew()
                _record(store, actor, {"grace": int(grace), "blobs": going, "size": _size(survey, going)})
                _remove(store, sweep, going)
            if survey.ripe:
                marked = _mark(store, free - set(going))
    staying = free - set(going)
    return Collected(
        delete,
        _items(survey, going),
        _items(survey, staying & marked),
        _items(survey, staying - marked),
        survey.total - len(going),
        held.expired,
        void,
        tuple(unfinished),
    )


def removals(store: Store) -> tuple[dict[str, Any], ...]:
    """The log of collections, oldest first, the chain verified. Raises CorruptError where it is broken."""
    found: list[dict[str, Any]] = []
    previous = None
    for number in range(1, _last(store) + 1):
        key = _entry_key(number)
        data = store.get(key, MAX_BYTES)
        if data is None:
            raise CorruptError(f"{store.url}: {key} is missing, and later entries are there")
        entry = parse_object(data, f"{store.url}: {key}")
        if (entry.get("format"), entry.get("seq"), entry.get("prev")) != (FORMAT, number, previous):
            raise CorruptError(f"{store.url}: {key} does not follow the entry before: the log was forked or altered")
        previous = digest_of(data)
        found.append(entry)
    return tuple(found)


def _survey(store: Store, grace: float) -> _Survey:
    # The mark's content before its age: one that another collection writes meanwhile then only seems younger.
    marked = _read_mark(store)
    store.put(_CLOCK, b"{}")
    ages = {item.key: item.modified for item in store.listing("gc")}
    if _CLOCK not in ages:
        raise UnreachableError(f"{store.url}: {_CLOCK} was written and is not listed; run slm-registry certify")
    now = ages[_CLOCK]
    ripe = not marked or now - ages.get(_MARK, now) >= min(grace, _BETWEEN)
    blobs = {f"sha256:{item.name}": item for item in store.listing("blobs/sha256")}
    old = {key: item for key, item in blobs.items() if names.is_digest(key) and now - item.modified >= grace}
    return _Survey(now, old, len(blobs), marked, ripe)


def _read_mark(store: Store) -> frozenset[str]:
    """What the first mark names; nothing where there is none, or one that cannot be read and is made anew."""
    try:
        data = store.get(_MARK, _MAX_MARK)
        if data is None:
            return frozenset()
        blobs = parse_object(data, _MARK, limit=_MAX_MARK).get("blobs")
    except CorruptError:
        return frozenset()
    return frozenset(blob for blob in blobs if isinstance(blob, str)) if isinstance(blobs, list) else frozenset()


def _mark(store: Store, blobs: Iterable[str]) -> frozenset[str]:
    """Write the first mark, as far as it can be read again: what it leaves out is marked when the rest is gone."""
    listed = sorted(blobs)[: (_MAX_MARK - _MARK_FRAME) // _MARK_EACH]
    if listed:
        store.put(_MARK, canonical({"format": FORMAT, "blobs": listed}))
    else:
        store.delete(_MARK)
    return frozenset(listed)


@contextlib.contextmanager
def _announced(store: Store, actor: str, blobs: list[str]) -> Iterator[leases.Sweep | None]:
    """A sweep that publishers can see, from before the leases are read until the last blob is gone."""
    if not blobs:
        yield None
        return
    sweep = leases.Sweep(store, actor, blobs)
    sweep.announce()
    try:
        yield sweep
    except (ConflictError, CorruptError):
        # No removal is under way. After any other error one whose answer got lost may still arrive: the sweep stays,
        # until it is void.
        sweep.end()
        raise
    sweep.end()


def _remove(store: Store, sweep: leases.Sweep, blobs: list[str]) -> None:
    signed = set(store.children(SIGNATURES))
    for number, digest in enumerate(blobs):
        if number % _RENEW_EVERY == 0:
            sweep.renew()
        # The signatures over a manifest go with it, and before it: what breaks off here is found again by the blob.
        if digest.removeprefix("sha256:") in signed:
            for name in store.children(signature_folder(digest)):
                store.delete(f"{signature_folder(digest)}/{name}")
        store.delete(blob_key(digest))


def _record(store: Store, actor: str, details: Mapping[str, Any]) -> None:
    """Append to the log of collections, which is the store's: blobs belong to no model, and a model's readers need
    not know what was never part of it."""
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for _ in range(_ROUNDS):
        seq = _last(store) + 1
        before = store.get(_entry_key(seq - 1), MAX_BYTES) if seq > 1 else None
        entry = {
            "format": FORMAT,
            "seq": seq,
            "prev": None if before is None else digest_of(before),
            "op": "gc",
            "actor": actor,
            "at": at,
            "nonce": uuid.uuid4().hex,
            **details,
        }
        if store.create(_entry_key(seq), canonical(entry)):
            return
    raise ConflictError(f"{store.url}: other collections were first {_ROUNDS} times; run it again")


def _last(store: Store) -> int:
    listed = (name.removesuffix(".json") for name in store.children(_LOG))
    return max((int(name) for name in listed if name.isdecimal()), default=0)


def _entry_key(number: int) -> str:
    return f"{_LOG}/{number:012d}.json"


def _items(survey: _Survey, digests: Iterable[str]) -> tuple[Item, ...]:
    return tuple(survey.old[digest] for digest in sorted(digests))


def _size(survey: _Survey, digests: Iterable[str]) -> int:
    return sum(survey.old[digest].size for digest in digests)
