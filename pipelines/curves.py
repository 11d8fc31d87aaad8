"""Loss curves on disk: one CSV a training stage, read by DVC's plots and by the report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch comes with it, and a flow needs none
    from pipelines.techniques.course import EpochRecord

COLUMNS = ("phase", "epoch", "train_loss", "validation_loss", "validation_accuracy")


def write_curve(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write one row an epoch; a stage that trained nothing writes the header alone."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(record.row() for record in records)


def read_curve(path: Path) -> list[dict[str, str]]:
    """The rows of a curve."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
