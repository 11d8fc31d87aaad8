"""What a model, an alias, a version, a reference and a file in a bundle may be called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from slm_registry.errors import UsageError
from slm_registry.ranges import is_range, parse_range

_KEY = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(/[a-z0-9][A-Za-z0-9._-]*)*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOKS_TAKEN = re.compile(r"v?[0-9]+(\..*)?|sha(256|384|512).*|[0-9a-f]{32,}")
_SHORT = 80
MAX_PATH = 1024
MAX_SEGMENT = 255


def model_name(value: str) -> str:
    """`value`, if it may name a model. Raises UsageError otherwise."""
    return _checked(value, "model name")


def is_model_name(value: str) -> bool:
    """Whether `value` may name a model."""
    return bool(_NAME.fullmatch(value))


def alias_name(value: str) -> str:
    """`value`, if it may name an alias: a name that nobody can take for a version or a digest."""
    _checked(value, "alias")
    if _LOOKS_TAKEN.fullmatch(value):
        raise UsageError(
            f"alias {_shown(value)} looks like a version or a digest; pick a word such as candidate or production"
        )
    return value


def _checked(value: str, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UsageError(
            f"{what} {_shown(value)} is not allowed; use 1 to 128 of a-z, 0-9, dot, underscore and dash, "
            "starting with a letter or a digit"
        )
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else text[:_SHORT] + "..."


def is_version(value: str) -> bool:
    """Whether `value` is a version such as 1.2.0."""
    return bool(_VERSION.fullmatch(value))


def version_key(value: str) -> tuple[int, int, int]:
    """The numbers of a version, for ordering. Raises UsageError if `value` is none."""
    match = _VERSION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise UsageError(f"version {_shown(value)} is not allowed; write three numbers without leading zeros: 1.2.0")
    return int(match[1]), int(match[2]), int(match[3])


def next_patch(newest: str | None) -> str:
    """The version after `newest`: its patch number plus one, or 1.0.0 where there is none yet."""
    if newest is None:
        return "1.0.0"
    major, minor, patch = version_key(newest)
    return f"{major}.{minor}.{patch + 1}"


def is_digest(value: str) -> bool:
    """Whether `value` is a digest such as sha256:<64 hex digits>."""
    return bool(_DIGEST.fullmatch(value))


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference: a model, and at most one of an alias, a version, a digest and a range."""

    model: str
    alias: str | None = None
    version: str | None = None
    digest: str | None = None
    range: str | None = None

    def __str__(self) -> str:
        selector = self.alias or self.version or self.digest or self.range
        return f"{self.model}@{selector}" if selector else self.model


def parse_ref(text: str) -> Ref:
    """Read `name`, `name@alias`, `name@1.2.0`, `name@>=1.2,<2` or `name@sha256:<hex>`. Raises UsageError otherwise."""
    if not isinstance(text, str):
        raise UsageError(f"a reference is text such as name@production, found {_shown(text)}")
    name, separator, selector = text.partition("@")
    model_name(name)
    if not separator:
        return Ref(name)
    if is_version(selector):
        return Ref(name, version=selector)
    if is_digest(selector):
        return Ref(name, digest=selector)
    if is_range(selector):
        parse_range(selector)
        return Ref(name, range=selector)
    try:
        return Ref(name, alias=alias_name(selector))
    except UsageError as error:
        raise UsageError(
            f"reference {_shown(text)}: what follows the @ is no alias, no version (1.2.0), no range (>=1.2,<2) "
            "and no digest (sha256: and 64 lower-case hex digits)"
        ) from error


def safe_path(path: str) -> str:
    """`path`, if it is a plain relative path with forward slashes. Raises UsageError otherwise."""
    problem = _path_problem(path)
    if problem:
        raise UsageError(f"file path {_shown(path)} is not allowed: {problem}")
    return path


def _path_problem(path: str) -> str | None:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not 0 < size <= MAX_PATH:
        return f"it must be 1 to {MAX_PATH} bytes long"
    if any(unicodedata.category(letter).startswith("C") for letter in path):
        return "it holds a control or invisible character"
    if "\\" in path or ":" in path or path.startswith("/"):
        return "it is absolute, or holds a backslash or a colon"
    for segment in path.split("/"):
        if segment in ("", ".", "..") or len(segment.encode("utf-8")) > MAX_SEGMENT:
            return f"the segment {_shown(segment)} points elsewhere or is longer than {MAX_SEGMENT} bytes"
    return None


def safe_paths(paths: Iterable[str]) -> None:
    """Check every path, and that no two meet on a file system that ignores case or Unicode form.

    Raises UsageError naming the path, or both.
    """
    seen: dict[str, str] = {}
    folded = []
    for path in paths:
        key = fold_path(safe_path(path))
        if key in seen:
            raise UsageError(f"file paths {_shown(seen[key])} and {_shown(path)} are one file on some file systems")
        seen[key] = path
        folded.append(key)
    for key in folded:
        parts = key.split("/")
        for length in range(1, len(parts)):
            above = seen.get("/".join(parts[:length]))
            if above is not None:
                raise UsageError(f"file path {_shown(above)} is a file and also a folder above {_shown(seen[key])}")


def fold_path(path: str) -> str:
    """The form under which two paths are the same file on the least careful file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def check_key(key: str) -> str:
    """`key`, if it is one that this package makes. Raises UsageError otherwise."""
    if not _KEY.fullmatch(key):
        raise UsageError(f"store key {key[:80]!r} is not allowed")
    return key
