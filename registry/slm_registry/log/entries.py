"""One entry of a model's log: its bytes, and the strict parser that reads them back.

An entry is written once, at the next free number, and never changed. It names the digest of the entry before it
(`prev`), so that the log is one chain, and the digest of the state that it leads to (`state`), so that a cached state
can be checked against the entry it claims to follow from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from slm_registry import names
from slm_registry.bundles.facts import check_facts
from slm_registry.bundles.manifest import MAX_SIZE
from slm_registry.errors import CorruptError, RegistryError, UsageError
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical, parse_object

FORMAT = 2
MAX_SEQ = 10**12 - 1
MAX_TEXT = 4096

_Fields = Mapping[str, tuple[type, ...]]
_COMMON: _Fields = {
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
_PUBLISH: _Fields = {"version": (str,), "manifest": (str,), "size": (int,)}
_ALIAS: _Fields = {"alias": (str,), "version": (str,), "expected": (str, type(None))}
_MARK: _Fields = {"version": (str,)}
# What each operation of each format adds to the common fields. What a reader does not know ends its reading.
_OPERATIONS: Mapping[int, Mapping[str, _Fields]] = {
    1: {"publish": _PUBLISH, "alias": _ALIAS},
    2: {
        "publish": {**_PUBLISH, "facts": (dict,)},
        "alias": _ALIAS,
        "promote": {**_ALIAS, "evaluation": (str,), "policy": (str,)},
        "yank": _MARK,
        "unyank": _MARK,
        "deprecate": _MARK,
        "undeprecate": _MARK,
    },
}
_DIGESTS = ("state", "manifest", "evaluation", "policy")


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
    format: int = FORMAT

    def as_dict(self) -> dict[str, Any]:
        """The entry as one flat JSON object."""
        common = {key: getattr(self, key) for key in _COMMON if key != "format"}
        return {**common, **self.details, "digest": self.digest}

    def blobs(self) -> tuple[str, ...]:
        """The digests of the blobs that the entry itself names: a version's manifest, a promotion's policy."""
        return tuple(self.details[key] for key in ("manifest", "policy") if key in self.details)


def entry_key(model: str, seq: int) -> str:
    """Where entry `seq` of a model's log lies."""
    return f"models/{model}/log/{seq:012d}.json"


def encode_entry(fields: Mapping[str, Any]) -> bytes:
    """The bytes of an entry."""
    return canonical({"format": FORMAT, **fields})


def parse_entry(data: bytes, model: str, seq: int, what: str) -> Entry:
    """Read the bytes at place `seq` of a model's log. Raises CorruptError, naming `what`, where they do not fit."""
    value = parse_object(data, what)
    added = _added_fields(value, what)
    _check_fields(value, {**_COMMON, **added}, what)
    if (value["model"], value["seq"]) != (model, seq):
        raise CorruptError(f"{what}: it belongs to {value['model']!r} number {value['seq']}, not here")
    _check_values(value, what)
    details = MappingProxyType({key: value[key] for key in added})
    return Entry(**{key: value[key] for key in _COMMON}, details=details, digest=digest_of(data))


def _added_fields(value: Mapping[str, Any], what: str) -> _Fields:
    number, operation = value.get("format"), value.get("op")
    # bool is an int to isinstance, but not to JSON.
    operations = _OPERATIONS.get(number) if type(number) is int else None
    if operations is None:
        raise CorruptError(
            f"{what}: format {number!r} is unknown, this release reads {', '.join(map(str, _OPERATIONS))}; "
            "upgrade slm-registry"
        )
    added = operations.get(operation) if isinstance(operation, str) else None
    if added is None:
        raise CorruptError(
            f"{what}: operation {operation!r} is unknown to this release (it reads {', '.join(operations)}); "
            "upgrade slm-registry"
        )
    return added


def _check_fields(value: Mapping[str, Any], wanted: _Fields, what: str) -> None:
    if value.keys() != wanted.keys():
        odd = sorted(value.keys() ^ wanted.keys())
        raise CorruptError(f"{what}: the fields {', '.join(odd)[:200]} are missing or not expected")
    for key, types in wanted.items():
        if type(value[key]) not in types:
            raise CorruptError(f"{what}: field {key!r} holds {type(value[key]).__name__}")
        if isinstance(value[key], str) and len(value[key]) > MAX_TEXT:
            raise CorruptError(f"{what}: field {key!r} is longer than {MAX_TEXT} characters")


def _check_values(value: Mapping[str, Any], what: str) -> None:
    try:
        names.version_key(value["version"])
        if "alias" in value:
            names.alias_name(value["alias"])
            if value["expected"] is not None:
                names.version_key(value["expected"])
        check_facts(value.get("facts", {}))
    except (RegistryError, ValueError) as error:
        raise CorruptError(f"{what}: {error}") from error
    digests = [value[key] for key in _DIGESTS if key in value]
    digests += [value["prev"]] if value["prev"] is not None else []
    if not all(names.is_digest(digest) for digest in digests) or not 0 <= value.get("size", 0) <= MAX_SIZE:
        raise CorruptError(f"{what}: a digest or a size in it is malformed")


def check_words(actor: str, reason: str) -> None:
    """Before any work: the log takes what people wrote, within bounds. Raises UsageError."""
    for what, value in (("actor", actor), ("reason", reason)):
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise UsageError(f"{what} {str(value)[:40]!r}...: give text of at most {MAX_TEXT} characters")
        canonical(value)
