"""The two cached states beside a log: head.json, always small, and index.json, with every version.

head.json   one line: {"format", "last": the newest entry, "state": the summary that this entry promises}
index.json  the same line as head.json had when a version last changed, then a line for each version

Both are hints. A reader believes one where it is consistent in itself (the summary has the digest that its own last
entry carries, the table the digest that the summary carries) and where no further entry follows. A writer reads the
entry itself, and everything from the start where the log holds another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from slm_registry import names
from slm_registry.bundles.facts import check_facts
from slm_registry.bundles.manifest import MAX_SIZE
from slm_registry.errors import CorruptError, RegistryError
from slm_registry.log.entries import FORMAT, MAX_SEQ, Entry, parse_entry
from slm_registry.log.state import Alias, Mark, ModelState, Version, summary, table_bytes, version_line
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical, parse_object

MAX_HEAD = 4 << 20
MAX_INDEX = 256 << 20

# What reading a value raises where it is of another kind than expected.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_FIELDS = {*Version.__slots__, "version"}


@dataclass(frozen=True, slots=True)
class Hint:
    """A cached state: the summary, its last entry, and the digest of the table of all versions."""

    state: ModelState
    last: Entry
    table: str


def encode_head(state: ModelState, last: bytes) -> bytes:
    """The bytes of head.json for a state that the entry with the bytes `last` leads to."""
    return canonical({"format": FORMAT, "last": json.loads(last), "state": summary(state)})


def encode_index(head: bytes, state: ModelState) -> bytes:
    """The bytes of index.json."""
    return head + b"\n" + table_bytes(state)


def parse_head(data: bytes, model: str) -> Hint:
    """Read head.json, or the first line of index.json. Raises CorruptError where it contradicts itself."""
    what = f"models/{model}/head.json"
    value = parse_object(data, what, limit=MAX_HEAD)
    try:
        told = value["state"]
        if value["format"] != FORMAT or told["model"] != model or not 0 < told["seq"] <= MAX_SEQ:
            raise CorruptError(f"{what}: another format, model or number")
        last = parse_entry(canonical(value["last"]), model, told["seq"], what)
        if digest_of(canonical(told)) != last.state:
            raise CorruptError(f"{what}: its state is not the one that its last entry promises")
        versions = _parse_lines([canonical(item) for item in told["pinned"]], what)
        aliases = {name: _alias(item) for name, item in told["aliases"].items()}
        if not names.is_digest(told["table"]) or any(alias.version not in versions for alias in aliases.values()):
            raise CorruptError(f"{what}: a version or a digest is missing")
    except (RegistryError, *_MALFORMED) as error:
        raise CorruptError(f"{what}: not a cached state: {error!r}"[:400]) from error
    state = ModelState(model, last.seq, last.digest, versions, MappingProxyType(aliases), whole=False)
    return Hint(state, last, told["table"])


def parse_index(data: bytes, model: str) -> tuple[Hint, bytes]:
    """Read index.json: its hint and the bytes of its table, whose digest is right. Raises CorruptError otherwise."""
    first, _, table = data.partition(b"\n")
    hint = parse_head(first, model)
    if digest_of(table) != hint.table:
        raise CorruptError(f"models/{model}/index.json: its versions are not those that its first line promises")
    return hint, table


def complete(hint: Hint, table: bytes) -> ModelState:
    """A hint's state with every version. Raises CorruptError where the table is not the hint's, or malformed."""
    what = f"models/{hint.state.model}/index.json"
    if digest_of(table) != hint.table:
        raise CorruptError(f"{what}: a table of other versions")
    lines = table.split(b"\n") if table else []
    try:
        versions = _parse_lines(lines, what)
    except (RegistryError, *_MALFORMED) as error:
        raise CorruptError(f"{what}: not a table of versions: {error!r}"[:400]) from error
    by_name = MappingProxyType(dict(zip(versions, lines, strict=True)))
    return replace(hint.state, versions=versions, lines=by_name, whole=True)


def encode_part(state: ModelState, wanted: Iterable[str]) -> bytes:
    """A state with its aliases and some of its versions, for a client to remember."""
    value = {
        "format": FORMAT,
        "model": state.model,
        "seq": state.seq,
        "entry": state.entry,
        "aliases": {name: asdict(alias) for name, alias in state.aliases.items()},
        "versions": [json.loads(version_line(name, state.versions[name])) for name in sorted(set(wanted))],
    }
    return canonical(value)


def parse_part(data: bytes, model: str, what: str) -> ModelState:
    """Read what `encode_part` wrote. Raises CorruptError for anything else."""
    value = parse_object(data, what, limit=MAX_INDEX)
    try:
        if (value["format"], value["model"]) != (FORMAT, model) or not names.is_digest(value["entry"]):
            raise CorruptError(f"{what}: another format or model")
        versions = _parse_lines([canonical(item) for item in value["versions"]], what)
        aliases = {name: _alias(item) for name, item in value["aliases"].items()}
        if any(alias.version not in versions for alias in aliases.values()):
            raise CorruptError(f"{what}: a version is missing")
        seq = _number(value["seq"])
    except (RegistryError, *_MALFORMED) as error:
        raise CorruptError(f"{what}: not a remembered state: {error!r}"[:400]) from error
    return ModelState(model, seq, value["entry"], versions, MappingProxyType(aliases), whole=False)


def _parse_lines(lines: Sequence[bytes], what: str) -> Mapping[str, Version]:
    found: dict[str, Version] = {}
    for line in lines:
        value = json.loads(line)
        name, version = value["version"], _version(value)
        # Ours writes no escapes but those of control characters; others may hold what cannot be printed.
        strange = b"\\u" in line and version_line(name, version) != line
        if name in found or strange or value.keys() != _FIELDS:
            raise CorruptError(f"{what}: version {str(name)[:40]!r} stands twice or is written in another way")
        found[name] = version
    return MappingProxyType(found)


def _version(value: Mapping[str, Any]) -> Version:
    names.version_key(value["version"])
    if not names.is_digest(value["manifest"]):
        raise ValueError("a manifest's digest is malformed")
    check_facts(value["facts"])
    return Version(
        manifest=value["manifest"],
        size=_number(value["size"], MAX_SIZE),
        facts=value["facts"],
        yanked=_mark(value["yanked"]),
        deprecated=_mark(value["deprecated"]),
        **_stamp(value),
    )


def _alias(value: Mapping[str, Any]) -> Alias:
    for version in (value["version"], *value["trail"]):
        names.version_key(version)
    if value.keys() != {"version", "trail", "seq", "actor", "at", "reason"}:
        raise ValueError("an alias has other fields")
    return Alias(version=value["version"], trail=tuple(value["trail"]), **_stamp(value))


def _mark(value: Mapping[str, Any] | None) -> Mark | None:
    return None if value is None else Mark(**_stamp(value))


def _stamp(value: Mapping[str, Any]) -> dict[str, Any]:
    words = {key: value[key] for key in ("actor", "at", "reason")}
    if not all(isinstance(word, str) for word in words.values()):
        raise TypeError("actor, at and reason are texts")
    return {"seq": _number(value["seq"]), **words}


def _number(value: object, most: int = MAX_SEQ) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise TypeError(f"{str(value)[:20]!r} is no count")
    return value
