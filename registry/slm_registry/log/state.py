"""What a model's log adds up to: the state, and the pure fold that leads to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from slm_registry import names
from slm_registry.errors import CorruptError
from slm_registry.log.entries import Entry, entry_key
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical, compact

# How far back an alias can be rolled.
MAX_TRAIL = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """That a version is yanked or deprecated: who said so, when and why."""

    seq: int
    actor: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Version:
    """A published version: where its manifest is, who published it when and why, and what it is found by."""

    manifest: str
    size: int
    seq: int
    actor: str
    at: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    yanked: Mark | None = None
    deprecated: Mark | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an alias points, who moved it there when and why; `trail` is where a rollback leads, the nearest last."""

    version: str
    seq: int
    actor: str
    at: str
    reason: str
    trail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """What a log adds up to after entry `seq`, whose digest is `entry`.

    Where `whole` is False, only the versions are known that an alias points at, the newest and the highest.
    `lines` holds the versions as index.json writes them, in the order of their publication.
    """

    model: str
    seq: int = 0
    entry: str | None = None
    versions: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))
    lines: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    whole: bool = True

    def newest(self) -> str | None:
        """The highest version that is not yanked, None where there is none."""
        sound = (name for name, version in self.versions.items() if version.yanked is None)
        return max(sound, key=names.version_key, default=None)

    def highest(self) -> str | None:
        """The highest version, yanked or not; None where nothing is published."""
        return max(self.versions, key=names.version_key, default=None)

    def aliases_of(self, version: str) -> tuple[str, ...]:
        """The aliases that point at a version, sorted."""
        return tuple(sorted(name for name, alias in self.aliases.items() if alias.version == version))


class _Tables:
    """A state under change: what `fold` works on, entry by entry, without a copy for each."""

    def __init__(self, base: ModelState) -> None:
        if not base.whole:
            raise ValueError("a state with only some of the versions cannot be continued")
        self.model = base.model
        self.versions = dict(base.versions)
        self.aliases = dict(base.aliases)
        self.lines = dict(base.lines)

    def apply(self, op: str, details: Mapping[str, Any], stamp: Mapping[str, Any]) -> None:
        """Change the tables by one operation. Raises CorruptError where the state before does not allow it."""
        what = entry_key(self.model, stamp["seq"])
        version = details["version"]
        if op == "publish":
            self._publish(details, stamp, what)
        elif op in ("alias", "promote"):
            self._point(details, stamp, what)
        else:
            self._mark(op, version, stamp, what)

    def _publish(self, details: Mapping[str, Any], stamp: Mapping[str, Any], what: str) -> None:
        version = details["version"]
        if version in self.versions:
            raise CorruptError(f"{what}: version {version} was published before")
        facts = details.get("facts", {})
        self._set(version, Version(details["manifest"], details["size"], facts=facts, **stamp))

    def _point(self, details: Mapping[str, Any], stamp: Mapping[str, Any], what: str) -> None:
        alias, version = details["alias"], details["version"]
        held, target = self.aliases.get(alias), self.versions.get(version)
        if target is None or target.yanked or details["expected"] != (held.version if held else None):
            raise CorruptError(f"{what}: alias {alias!r} moves in a way that the log before it does not allow")
        self.aliases[alias] = Alias(version, trail=_trail(held, version), **stamp)

    def _mark(self, op: str, version: str, stamp: Mapping[str, Any], what: str) -> None:
        kind, value = MARKS[op]
        held = self.versions.get(version)
        pointed = op == "yank" and any(alias.version == version for alias in self.aliases.values())
        if held is None or pointed or (getattr(held, kind) is not None) == value:
            raise CorruptError(f"{what}: {op} of {version} is not what the log before it allows")
        mark = Mark(**stamp) if value else None
        self._set(version, replace(held, yanked=mark) if kind == "yanked" else replace(held, deprecated=mark))

    def _set(self, name: str, version: Version) -> None:
        self.versions[name] = version
        self.lines[name] = version_line(name, version)

    def state(self, seq: int, entry: str | None) -> ModelState:
        """The tables as they are now."""
        tables = [MappingProxyType(table) for table in (self.versions, self.aliases, self.lines)]
        return ModelState(self.model, seq, entry, *tables)  # type: ignore[arg-type]


# The field of a version that an operation sets, or empties.
MARKS: Mapping[str, tuple[str, bool]] = {
    "yank": ("yanked", True),
    "unyank": ("yanked", False),
    "deprecate": ("deprecated", True),
    "undeprecate": ("deprecated", False),
}


def _trail(held: Alias | None, version: str) -> tuple[str, ...]:
    """Where the alias was before. A move back to one of these is a rollback: what came after it is forgotten."""
    if held is None or held.version == version:
        return held.trail if held else ()
    before = (*held.trail, held.version)
    return before[: before.index(version)] if version in before else before[-MAX_TRAIL:]


def version_line(name: str, version: Version) -> bytes:
    """A version as one line of index.json."""
    value = {key: getattr(version, key) for key in _PLAIN} | {"version": name, "facts": version.facts}
    marks = {key: asdict(mark) if (mark := getattr(version, key)) else None for key in ("yanked", "deprecated")}
    return compact(value | marks)


_PLAIN = ("manifest", "size", "seq", "actor", "at", "reason")


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
    if last is not None and _PROMISES[last.format](state) != last.state:
        raise CorruptError(f"{entry_key(base.model, seq)}: it promises another state than the log adds up to")
    return state


def next_state(state: ModelState, op: str, details: Mapping[str, Any], stamp: Mapping[str, Any]) -> ModelState:
    """The state after an operation, its entry's digest unknown yet. Raises CorruptError where it is not possible."""
    tables = _Tables(state)
    tables.apply(op, details, {"seq": state.seq + 1, **stamp})
    return tables.state(state.seq + 1, None)


def table_bytes(state: ModelState) -> bytes:
    """All versions, a line each."""
    return b"\n".join(state.lines.values())


def summary(state: ModelState) -> dict[str, Any]:
    """What an entry promises of the state it leads to, and head.json holds: small however many versions there are.

    The aliases; the versions they point at, the newest and the highest; and of all versions the digest of their table.
    """
    wanted = {alias.version for alias in state.aliases.values()} | {state.newest(), state.highest()}
    return {
        "model": state.model,
        "seq": state.seq,
        "aliases": {name: asdict(alias) for name, alias in state.aliases.items()},
        "pinned": [json.loads(state.lines[name]) for name in sorted(name for name in wanted if name is not None)],
        "versions": len(state.lines),
        "table": digest_of(table_bytes(state)),
    }


def state_digest(state: ModelState) -> str:
    """The digest that an entry carries of the state it leads to."""
    return digest_of(canonical(summary(state)))


def _first_digest(state: ModelState) -> str:
    """What entries of format 1 promise: the digest of the state as it was then."""
    versions = {name: {key: getattr(item, key) for key in _PLAIN} for name, item in state.versions.items()}
    fields = ("version", "seq", "actor", "at", "reason")
    aliases = {name: {key: getattr(item, key) for key in fields} for name, item in state.aliases.items()}
    value = {"model": state.model, "seq": state.seq, "versions": versions, "aliases": aliases}
    return digest_of(canonical(value))


_PROMISES = {1: _first_digest, 2: state_digest}
