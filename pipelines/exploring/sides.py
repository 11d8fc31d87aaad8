"""What stands beside each other on a front, whatever the task: parts as users run them, and their teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.config import AnySearch, Task
from pipelines.data.clean import Split
from pipelines.exploring.parts import Parts
from pipelines.exploring.targets import Questions
from pipelines.techniques.shapes import Slice

#: A split -> counts [N, K], a row a text, as the task's yardstick reads them.
Judge = Callable[[Split], np.ndarray]


class Sides(Protocol):
    """How a task's models are exported, judged and asked."""

    def questions(self, parts: Parts, rows: Sequence[int], settings: AnySearch) -> Questions:
        """What everything is timed on: the validation texts in these rows, as they are asked."""

    def export(self, parts: Parts, part: Slice, folders: Mapping[str, Path], settings: AnySearch) -> None:
        """Write a part in each quantization, by its name, into a new folder. Raises ModelError where the file differs from torch."""

    def exported(self, folder: Path, threads: int) -> Judge:
        """What judges an exported part."""

    def teacher(self, folder: Path, threads: int) -> tuple[Judge, Callable[[Questions], Callable[[list[str]], Any]]]:
        """What judges the teacher, in torch, eager, and what answers while it is timed."""


def sides_of(task: Task) -> Sides:
    """The sides of a task's front."""
    if task.type == "text-classification":
        from pipelines.exploring.classifier_sides import ClassifierSides

        return ClassifierSides(task)
    from pipelines.exploring.token_sides import TokenSides

    return TokenSides(task)
