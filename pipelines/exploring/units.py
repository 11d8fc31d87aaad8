"""What is done with one part of an elastic student before the choice, in this process or in another: exported, asked.

Each answers the same wherever it is done, so each fixes its own seeds and threads. Each travels as the folders that it was opened from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.config import Task
from pipelines.data.clean import Split, load_clean
from pipelines.exploring.sides import sides_of
from pipelines.exploring.workshop import Workshop
from pipelines.reproducible import fixed
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Order:
    """A part to export: the folder to write for each quantization."""

    part: Slice
    folders: Mapping[str, Path]


@dataclass(frozen=True)
class Exporting:
    """Exports a part once, and quantizes it as often as ordered. Raises ModelError where the file differs from torch."""

    workshop: Workshop

    def __call__(self, order: Order) -> None:
        with fixed(self.workshop.task, threads=1):
            sides_of(self.workshop.task).export(self.workshop.parts, order.part, order.folders, self.workshop.settings)


@dataclass(frozen=True)
class Answering:
    """Counts [N, K] of an exported part, a row a validation text; of some rows alone where they are named."""

    clean: Path
    task: Task
    threads: int
    rows: tuple[int, ...] | None

    @cached_property
    def _validation(self) -> Split:
        whole = load_clean(self.clean).validation
        return whole if self.rows is None else whole.of(self.rows)

    def __call__(self, folder: Path) -> np.ndarray:
        return sides_of(self.task).exported(folder, self.threads)(self._validation)
