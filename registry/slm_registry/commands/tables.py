"""How the command line prints tables."""

from __future__ import annotations

from collections.abc import Sequence

from slm_registry.finding.records import Row
from slm_registry.plumbing.printable import clean, size_text


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
