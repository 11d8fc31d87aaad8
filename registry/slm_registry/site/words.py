"""What happened, in words; and free text made fit to be shown."""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_registry import names

_COMMON = frozenset({"model", "seq", "prev", "state", "op", "actor", "reason", "at", "nonce", "digest", "format"})
# What the words of an operation say already, or what is shown with the version.
_SAID = frozenset({"version", "alias", "expected", "manifest", "size", "facts"})
# op -> words; {version}, {alias} and {expected} stand for the entry's own.
_WORDS: Mapping[str, str] = {
    "publish": "Published {version}",
    "promote": "Promoted {version} to {alias}",
    "demote": "Demoted {alias} to {version}",
    "rollback": "Rolled {alias} back to {version}",
    "yank": "Yanked {version}",
    "unyank": "Restored {version}, yanked before",
    "deprecate": "Deprecated {version}",
    "undeprecate": "Lifted the deprecation of {version}",
    "gc": "Removed blobs that nothing refers to",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log: who, when, what, why, and the fields that the words do not hold."""

    seq: int
    op: str
    actor: str
    at: str
    what: str
    reason: str
    extras: tuple[tuple[str, str], ...]
    version: str | None


def event(entry: Mapping[str, Any]) -> Event:
    """The event that a log entry, as one flat object, tells of; an operation without words of its own shows its fields."""
    op, version = str(entry["op"]), entry.get("version")
    what = _words(op, entry)
    known = op == "alias" or op in _WORDS
    hidden = _COMMON | (_SAID if known else frozenset())
    extras = tuple((key, str(value)) for key, value in sorted(entry.items()) if key not in hidden and value is not None)
    shown = version if isinstance(version, str) else None
    return Event(entry["seq"], op, entry["actor"], entry["at"], what, entry["reason"], extras, shown)


def _words(op: str, entry: Mapping[str, Any]) -> str:
    fields = {key: str(entry.get(key, "")) for key in ("version", "alias", "expected")}
    before = entry.get("expected")
    if op == "alias":
        return _move(fields["alias"], before, fields["version"])
    if op == "promote" and before:
        return "Promoted {version} to {alias}, which was at {expected}".format(**fields)
    return _WORDS.get(op, op.replace("{", "").replace("}", "")).format(**fields).strip()


def _move(alias: str, before: str | None, version: str) -> str:
    if before is None:
        return f"Pointed {alias} at {version}"
    back = all(names.is_version(value) for value in (before, version)) and (
        names.version_key(version) < names.version_key(before)
    )
    return f"Moved {alias} {'back ' if back else ''}from {before} to {version}"


def marks(entries: tuple[Mapping[str, Any], ...]) -> dict[str, dict[str, str]]:
    """For each version that is yanked or deprecated now: which, and the reason given."""
    found: dict[str, dict[str, str]] = {}
    kinds = {"yank": "yanked", "deprecate": "deprecated"}
    for entry in entries:
        op, version = entry["op"], str(entry.get("version"))
        if op in kinds:
            found.setdefault(version, {})[kinds[op]] = entry["reason"]
        elif op.removeprefix("un") in kinds:
            found.get(version, {}).pop(kinds[op.removeprefix("un")], None)
    return found


def day(at: str) -> str:
    """A moment of the log as people write it, in UTC; whatever is no moment is left as it is."""
    try:
        moment = datetime.datetime.fromisoformat(at).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return at
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} UTC"


# Not strftime("%b"): that follows the machine's language, and the same log must give the same bytes.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def visible(text: str) -> str:
    """Text without characters that hide, reorder or break what stands around them; lines and tabs stay."""
    return "".join(c if c in "\n\t" or not unicodedata.category(c).startswith("C") else "�" for c in text)


def cut(text: str, length: int) -> str:
    """At most `length` characters, an ellipsis where some are missing."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
