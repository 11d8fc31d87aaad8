"""The one form in which rows travel from reading to the clean set."""

from __future__ import annotations

from typing import NamedTuple

#: The splits that hold labelled rows, in the order of every output.
SPLITS = ("train", "validation", "test")
#: Rows without labels.
UNLABELLED = "unlabelled"
#: Rows that the factory has yet to cut into splits.
UNCUT = "uncut"


class Row(NamedTuple):
    """One row as it stands in its source; nothing is coerced, None is a missing cell.

    `label` is what the model is to answer: a label, another text, or a tag a word; None where the task wants none.
    """

    split: str
    file: str
    line: int
    text: str | None
    label: str | None

    @property
    def place(self) -> str:
        """Where an editor finds the row."""
        return f"{self.file}:{self.line}"


def shortened(value: str | None, width: int = 60) -> str:
    """A value as messages and reports show it: one line, at most `width` characters."""
    if value is None:
        return "(missing)"
    line = " ".join(value[: 4 * width].split())
    cut = len(line) > width or len(value) > 4 * width
    return repr(line[:width] + "…") if cut else repr(line)


def described(row: Row, reason: str) -> str:
    """A finding in one line: place, text, label and what is wrong."""
    label = "" if row.label is None else f" [{shortened(row.label)[1:-1]}]"
    return f"{row.place}: {shortened(row.text)}{label}: {reason}"
