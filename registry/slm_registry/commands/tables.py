"""How the command line prints sizes and tables."""

from __future__ import annotations

from collections.abc import Sequence

from slm_registry.printable import clean
from slm_registry.records import Row


def size_text(size: int) -> str:
    """A size in bytes, as people read it."""
    if size < 1000:
        return f"{size} B"
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number >= 1000:
            number, unit = number / 1000, larger
    return f"{number:.1f} {unit}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 model, 2 models; `plural` where an s does not make it."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; control characters in a cell do not reach the terminal."""
    cells = [[clean(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def rows_text(rows: Sequence[Row], metrics: Sequence[str] = ()) -> str:
    """Versions as a table, with a column for each of some metrics."""
    head = ("model", "version", "aliases", "status", "size", *metrics, "at", "by", "digest")
    cells = []
    for row in rows:
        numbers = row.facts.get("metrics", {})
        shown = [f"{numbers[name]:.6g}" if name in numbers else "" for name in metrics]
        where = (row.model, row.version, ", ".join(row.aliases), row.status, size_text(row.size))
        cells.append((*where, *shown, row.at, row.actor, row.digest[7:19]))
    return table(head, cells)
