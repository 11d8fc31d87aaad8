"""Ranges of versions: `>=1.2,<2`, each part a comparison, all of which must hold."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slm_registry.errors import UsageError

_Key = tuple[int, int, int]

MAX_PARTS = 8
MAX_CHARS = 200
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_PART = re.compile(rf"(>=|<=|==|!=|>|<|~){_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER})?)?")
_COMPARE: Mapping[str, Callable[[_Key, _Key], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Range:
    """Comparisons of a version's three numbers, as (operator, numbers)."""

    parts: tuple[tuple[str, _Key], ...]

    def allows(self, key: _Key) -> bool:
        """Whether a version with these numbers satisfies every comparison."""
        return all(_COMPARE[sign](key, numbers) for sign, numbers in self.parts)


def is_range(text: str) -> bool:
    """Whether a text can only be meant as a range: it starts with a comparison."""
    return text[:1] in tuple("<>=!~")


def parse_range(text: str) -> Range:
    """Read `>=1.2,<2`. Numbers left out are zeros; `~1.2.3` is >=1.2.3,<1.3.0 and `~1` is >=1.0.0,<2.0.0.

    Raises UsageError for anything else.
    """
    parts: list[tuple[str, _Key]] = []
    words = text.split(",") if len(text) <= MAX_CHARS else []
    for word in words[: MAX_PARTS + 1]:
        match = _PART.fullmatch(word)
        if match is None:
            words = []
            break
        given = [int(number) for number in match.groups()[1:] if number is not None]
        parts += _comparisons(match[1], given)
    if not 0 < len(words) <= MAX_PARTS:
        raise UsageError(
            f"range {text[:80]!r} is not allowed; write up to {MAX_PARTS} comparisons (>= > <= < == != ~) of versions, "
            "joined by commas and without blanks: >=1.2,<2"
        )
    return Range(tuple(parts))


def _comparisons(sign: str, given: list[int]) -> list[tuple[str, _Key]]:
    major, minor, patch = [*given, 0, 0][:3]
    low = (major, minor, patch)
    if sign != "~":
        return [(sign, low)]
    return [(">=", low), ("<", (major + 1, 0, 0) if len(given) == 1 else (major, minor + 1, 0))]
