"""What the logs of a store refer to: every blob that must stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from slm_registry import names
from slm_registry.bundles.manifest import MAX_MANIFEST
from slm_registry.errors import CorruptError
from slm_registry.log.entries import Entry, entry_key
from slm_registry.log.hints import MAX_HEAD, parse_head
from slm_registry.log.history import History
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import parse_object
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import blob_key


def model_names(store: Store) -> list[str]:
    """What stands where models stand and can be one, with or without a version."""
    return [name for name in store.children("models") if names.is_model_name(name)]


def entry_numbers(store: Store, model: str) -> list[int]:
    """The numbers of the log entries that a model's folder lists, in order."""
    listed = (name.removesuffix(".json") for name in store.children(f"models/{model}/log") if name.endswith(".json"))
    return sorted(int(name) for name in listed if name.isdecimal() and len(name) == 12)


def hinted_number(store: Store, model: str) -> int:
    """How far a model's log goes by its hint, 0 where there is none to be read."""
    try:
        data = store.get(f"models/{model}/head.json", MAX_HEAD)
        return parse_head(data, model).state.seq if data is not None else 0
    except CorruptError:
        return 0


def whole_log(store: Store, model: str) -> tuple[Entry, ...]:
    """All entries of a model. Raises CorruptError where one is missing or altered, at the end too.

    A reader takes the first number that is not there for the end; whoever removes things must be surer than that.
    """
    history = History(store, model)
    hinted = hinted_number(store, model)
    entries = history.entries()
    last = max([hinted, *entry_numbers(store, model)])
    if last > len(entries):
        # Written since, or behind a gap.
        entries = history.entries()
    if last > len(entries):
        raise CorruptError(
            f"{store.url}: {entry_key(model, len(entries) + 1)} is missing and the log goes on to {last}; "
            "run slm-registry fsck"
        )
    return entries


def live_blobs(store: Store, going: Callable[[], None] = lambda: None) -> set[str]:
    """The digests of everything that a log entry of any model leads to; `going` is called as the walk goes on.

    Raises CorruptError where a log or a manifest is damaged, since what it led to is then unknown.
    """
    live: set[str] = set()
    for model in model_names(store):
        for entry in whole_log(store, model):
            going()
            for digest in digests_in(dict(entry.details)) - live:
                required = digest == entry.details.get("manifest")
                live.update(_below(store, digest, f"{model}: entry {entry.seq}", required=required))
    return live


def _below(store: Store, digest: str, what: str, *, required: bool) -> Iterator[str]:
    """A blob that an entry names, and what it names: a manifest's layers, and what its config names again."""
    yield digest
    value = _json_blob(store, digest, what, required=required)
    yield from digests_in(value)
    config = value.get("config")
    if isinstance(config, dict) and names.is_digest(str(config.get("digest"))):
        yield from digests_in(_json_blob(store, config["digest"], f"{what}: config", required=required))


def _json_blob(store: Store, digest: str, what: str, *, required: bool) -> dict[str, Any]:
    """A JSON blob. Unless it is required, whatever else stands there, or nothing, counts as an empty one."""
    key = blob_key(digest)
    size = store.size(key)
    if not required and (size is None or size > MAX_MANIFEST):
        return {}
    data = store.get(key, MAX_MANIFEST)
    if data is None or digest_of(data) != digest:
        state = "missing" if data is None else "altered"
        raise CorruptError(f"{what}: {store.url}: {key} is {state}; run slm-registry fsck")
    try:
        return parse_object(data, what, limit=MAX_MANIFEST)
    except CorruptError:
        if required:
            raise
        return {}


def digests_in(value: Any) -> set[str]:
    """Every text in a JSON value that is a digest, wherever it stands."""
    found: set[str] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str) and names.is_digest(item):
            found.add(item)
    return found
