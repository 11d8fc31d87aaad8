"""How the command line prints sizes and tables."""

from __future__ import annotations

from collections.abc import Sequence


def size_text(size: int) -> str:
    """A size in bytes, as people read it."""
    if size < 1000:
        return f"{size} B"
    number, units = float(size), iter(("kB", "MB", "GB", "TB"))
    unit = "B"
    while number >= 1000 and (unit := next(units, "")):
        number /= 1000
    return f"{number:.1f} {unit}"


def clean(text: str) -> str:
    """Text on one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; control characters in a cell do not reach the terminal."""
    cells = [[clean(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)
