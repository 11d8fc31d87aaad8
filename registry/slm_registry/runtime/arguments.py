"""What callers hand over, checked."""

from __future__ import annotations

from collections.abc import Sequence

from slm_registry.errors import InputTypeError, UsageError


def at_least_one(what: str, value: int) -> int:
    """The value, where it is a whole number of 1 or more. Raises UsageError."""
    if type(value) is not int or value < 1:
        raise UsageError(f"{what} is {value!r}; give a whole number, 1 or more")
    return value


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts, where each is one that UTF-8 can write. Raises InputTypeError."""
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"a list of texts was expected, found one {type(texts).__name__}; write predict([text])")
    try:
        rows = list(texts)
    except TypeError as error:
        raise InputTypeError(f"a list of texts was expected, found {type(texts).__name__}") from error
    for index, row in enumerate(rows):
        if not isinstance(row, str):
            raise InputTypeError(f"text {index} is {type(row).__name__} ({str(row)[:40]}); every text must be a str")
        try:
            row.encode()
        except UnicodeEncodeError as error:
            raise InputTypeError(f"text {index} cannot be written as UTF-8: {error.reason}; decode it first") from error
    return rows
