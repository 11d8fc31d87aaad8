"""The log of a model: entries, their strict parser, and the pure fold that says what they add up to.

An entry is written once, at the next free number, and never changed. It names the digest of the entry before it
(`prev`), so that the log is one chain, and the digest of the state that it leads to (`state`), so that a reader may
take a cached state from anybody and still believe the log alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from slm_registry import names
from slm_registry.errors import CorruptError, RegistryError, UsageError
from slm_registry.hashing import digest_of
from slm_registry.jsonio import canonical, parse_object

FORMAT = 1
MAX_SEQ = 10**12 - 1
MAX_TEXT = 4096
MAX_HEAD = 64 << 20

_COMMON: Mapping[str, tuple[type, ...]] = {
    "format": (int,),
    "model": (str,),
    "seq": (int,),
    "prev": (str, type(None)),
    "state": (str,),
    "op": (str,),
    "actor": (str,),
    "reason": (str,),
    "at": (str,),
    "nonce": (str,),
}
# What each operation adds to the common fields. An operation that a reader does not know ends its reading.
_OPERATIONS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "publish": {"version": (str,), "manifest": (str,), "size": (int,)},
    "alias": {"alias": (str,), "version": (str,), "expected": (str, type(None))},
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a model's log, as parsed; `details` holds what its operation adds, `digest` is that of its bytes."""

    model: str
    seq: int
    prev: str | None
    state: str
    op: str
    actor: str
    reason: str
    at: str
    nonce: str
    details: Mapping[str, Any]
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """The entry as one flat JSON object."""
        common = {key: getattr(self, key) for key in _COMMON if key != "format"}
        return {**common, **self.details, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Version:
    """A published version: where its manifest is, and who published it when and why."""

    manifest: str
    size: int
    seq: int
    actor: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an alias points, and who moved it there when and why."""

    version: str
    seq: int
    actor: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelState:
    """What a log adds up to after entry `seq`, whose digest is `entry`."""

    model: str
    seq: int = 0
    entry: str | None = None
    versions: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))

    def newest(self) -> str | None:
        """The highest version, None where nothing is published."""
        return max(self.versions, key=names.version_key, default=None)

    def aliases_of(self, version: str) -> tuple[str, ...]:
        """The aliases that point at a version, sorted."""
        return tuple(sorted(name for name, alias in self.aliases.items() if alias.version == version))


def entry_key(model: str, seq: int) -> str:
    """Where entry `seq` of a model's log lies."""
    return f"models/{model}/log/{seq:012d}.json"


def encode_entry(fields: Mapping[str, Any]) -> bytes:
    """The bytes of an entry."""
    return canonical({"format": FORMAT, **fields})


def parse_entry(data: bytes, model: str, seq: int, what: str) -> Entry:
    """Read the bytes at place `seq` of a model's log. Raises CorruptError, naming `what`, where they do not fit."""
    value = parse_object(data, what)
    if value.get("format") != FORMAT:
        raise CorruptError(
            f"{what}: format {value.get('format')!r} is unknown, this release reads {FORMAT}; upgrade slm-registry"
        )
    operation = value.get("op")
    added = _OPERATIONS.get(operation) if isinstance(operation, str) else None
    if added is None:
        raise CorruptError(
            f"{what}: operation {operation!r} is unknown to this release (it reads {', '.join(_OPERATIONS)}); "
            "upgrade slm-registry"
        )
    _check_fields(value, {**_COMMON, **added}, what)
    if (value["model"], value["seq"]) != (model, seq):
        raise CorruptError(f"{what}: it belongs to {value['model']!r} number {value['seq']}, not here")
    _check_values(value, what)
    common = {key: value[key] for key in _COMMON if key != "format"}
    details = MappingProxyType({key: value[key] for key in added})
    return Entry(**common, details=details, digest=digest_of(data))


def _check_fields(value: Mapping[str, Any], wanted: Mapping[str, tuple[type, ...]], what: str) -> None:
    if value.keys() != wanted.keys():
        odd = sorted(value.keys() ^ wanted.keys())
        raise CorruptError(f"{what}: the fields {', '.join(odd)[:200]} are missing or not expected")
    for key, types in wanted.items():
        # bool is an int to isinstance, but not to JSON.
        if type(value[key]) not in types:
            raise CorruptError(f"{what}: field {key!r} holds {type(value[key]).__name__}")
        if isinstance(value[key], str) and len(value[key]) > MAX_TEXT:
            raise CorruptError(f"{what}: field {key!r} is longer than {MAX_TEXT} characters")


def _check_values(value: Mapping[str, Any], what: str) -> None:
    try:
        names.version_key(value["version"])
        if value["op"] == "alias":
            names.alias_name(value["alias"])
            if value["expected"] is not None:
                names.version_key(value["expected"])
    except RegistryError as error:
        raise CorruptError(f"{what}: {error}") from error
    digests = [value["state"], value.get("manifest", value["state"]), value["prev"] or value["state"]]
    if not all(names.is_digest(digest) for digest in digests) or value.get("size", 0) < 0:
        raise CorruptError(f"{what}: a digest or a size in it is malformed")


class _Tables:
    """A state under change: what `fold` works on, entry by entry, without a copy for each."""

    def __init__(self, base: ModelState) -> None:
        self.model = base.model
        self.versions = dict(base.versions)
        self.aliases = dict(base.aliases)

    def apply(self, op: str, details: Mapping[str, Any], stamp: Mapping[str, Any]) -> None:
        """Change the tables by one operation. Raises CorruptError where the state before does not allow it."""
        what = entry_key(self.model, stamp["seq"])
        version = details["version"]
        if op == "publish":
            if version in self.versions:
                raise CorruptError(f"{what}: version {version} was published before")
            self.versions[version] = Version(manifest=details["manifest"], size=details["size"], **stamp)
            return
        alias = details["alias"]
        held = self.aliases.get(alias)
        if version not in self.versions or details["expected"] != (held.version if held else None):
            raise CorruptError(f"{what}: alias {alias!r} moves in a way that the log before it does not allow")
        self.aliases[alias] = Alias(version=version, **stamp)

    def state(self, seq: int, entry: str | None) -> ModelState:
        """The tables as they are now."""
        return ModelState(self.model, seq, entry, MappingProxyType(self.versions), MappingProxyType(self.aliases))


def check_words(actor: str, reason: str) -> None:
    """Before any work: the log takes what people wrote, within bounds. Raises UsageError."""
    for what, value in (("actor", actor), ("reason", reason)):
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise UsageError(f"{what} {str(value)[:40]!r}...: give text of at most {MAX_TEXT} characters")
        canonical(value)


def fold(entries: Iterable[Entry], base: ModelState) -> ModelState:
    """The state after `entries`, which follow on `base`.

    Raises CorruptError where the chain is broken, an entry could not have been written on the state before it, or the
    last one promises another state.
    """
    tables, seq, digest, last = _Tables(base), base.seq, base.entry, None
    for entry in entries:
        if (entry.seq, entry.prev) != (seq + 1, digest):
            key = entry_key(base.model, entry.seq)
            raise CorruptError(f"{key}: it does not follow entry {seq}: the log was forked or altered")
        stamp = {"seq": entry.seq, "actor": entry.actor, "at": entry.at, "reason": entry.reason}
        tables.apply(entry.op, entry.details, stamp)
        seq, digest, last = entry.seq, entry.digest, entry
    state = tables.state(seq, digest)
    if last is not None and state_digest(state) != last.state:
        raise CorruptError(f"{entry_key(base.model, seq)}: it promises another state than the log adds up to")
    return state


def next_state(state: ModelState, op: str, details: Mapping[str, Any], stamp: Mapping[str, Any]) -> ModelState:
    """The state after an operation, its entry's digest unknown yet. Raises CorruptError where it is not possible."""
    tables = _Tables(state)
    tables.apply(op, details, {"seq": state.seq + 1, **stamp})
    return tables.state(state.seq + 1, None)


def state_value(state: ModelState) -> dict[str, Any]:
    """The state as JSON, without the digest of the entry that leads to it (which contains the state's digest)."""
    return {
        "model": state.model,
        "seq": state.seq,
        "versions": {name: asdict(version) for name, version in state.versions.items()},
        "aliases": {name: asdict(alias) for name, alias in state.aliases.items()},
    }


def state_digest(state: ModelState) -> str:
    """The digest that an entry carries of the state it leads to."""
    return digest_of(canonical(state_value(state)))


def encode_head(state: ModelState) -> bytes:
    """The bytes of head.json: a state, to be believed only where the log's own entry promises it."""
    return canonical({"format": FORMAT, "entry": state.entry, "state": state_value(state)})


def parse_head(data: bytes, model: str) -> ModelState:
    """Read head.json. Raises CorruptError for anything that cannot be a state of this model."""
    what = f"models/{model}/head.json"
    value = parse_object(data, what, limit=MAX_HEAD)
    try:
        state = value["state"]
        if value["format"] != FORMAT or state["model"] != model or not 0 < int(state["seq"]) <= MAX_SEQ:
            raise CorruptError(f"{what}: another format, model or number")
        return ModelState(
            model,
            state["seq"],
            value["entry"],
            MappingProxyType({name: Version(**item) for name, item in state["versions"].items()}),
            MappingProxyType({name: Alias(**item) for name, item in state["aliases"].items()}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"{what}: not a cached state: {error!r}") from error
