"""JSON as the registry reads and writes it: one canonical form out, a strict and bounded parser in."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from slm_registry.errors import CorruptError, UsageError

MAX_DEPTH = 32
MAX_BYTES = 1 << 20


# One encoder for all calls: json.dumps makes a new one each time, which is most of its time for a small value.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def compact(value: Any) -> bytes:
    """The canonical form of a value that was checked before. Raises ValueError or TypeError for what JSON cannot hold."""
    return _ENCODER.encode(value).encode()


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no blanks, UTF-8.

    Raises UsageError for what JSON cannot hold (NaN, other types, non-string keys).
    """
    try:
        data = compact(value)
        check_json(json.loads(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"not a JSON value: {error}; use plain dicts, lists, strings and finite numbers") from error
    return data


def parse_object(data: bytes, what: str, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in `data`. Raises CorruptError, naming `what`, for anything else or anything over the bounds."""
    if len(data) > limit:
        raise CorruptError(f"{what}: {len(data)} bytes, more than the {limit} allowed")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        check_json(value)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{what}: not strict JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{what}: a JSON object was expected, found {type(value).__name__}")
    return value


def check_json(value: Any) -> None:
    """Raise ValueError where a parsed value is nested too deep or holds text that UTF-8 cannot write."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isascii():
                item.encode("utf-8")
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may each take another one of two equal keys, so there must not be two."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value
