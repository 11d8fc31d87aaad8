"""Words and their tags: one row of two equally long lists."""

from __future__ import annotations

import json

from pipelines.data.rows import shortened
from pipelines.errors import DataError


def joined(cells: list[str | None], line: int, *, location: str) -> list[str | None]:
    """Both cells as words separated by one space; a JSON list of words is such a cell too.

    Raises DataError for a list that holds anything but words, or a word with white space in it.
    """
    return [None if cell is None else " ".join(_words(cell, line, location)) for cell in cells]


def _words(cell: str, line: int, location: str) -> list[str]:
    if not cell.startswith("["):
        return cell.split()
    try:
        words: list[str] = json.loads(cell)
    except json.JSONDecodeError:
        return cell.split()
    bad = next((word for word in words if not isinstance(word, str) or len(word.split()) != 1), None)
    if bad is not None:
        raise DataError(
            f"{location}: line {line}: {shortened(str(bad))} is no word; give a JSON list of words without spaces"
        )
    return words
