"""A chosen part cut from an elastic student and trained alone, in this process or in another, with the same weights at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipelines.config import AnyChosenPruning, Task
from pipelines.exploring.parts import Learn, Parts, open_parts
from pipelines.exploring.points import Point
from pipelines.exploring.yardsticks import yardstick_of
from pipelines.reproducible import fixed
from pipelines.techniques.metrics import Interval
from pipelines.techniques.training import EpochRecord


@dataclass(frozen=True)
class Recovery:
    """A point to recover, and what its curve is called."""

    phase: str
    point: Point


@dataclass(frozen=True)
class Recovered:
    """A recovered part: its weights by name, a record an epoch, what it has lost to the teacher on validation."""

    weights: dict[str, Tensor]
    records: list[EpochRecord]
    lost: Interval


@dataclass(frozen=True)
class Recovering:
    """Cuts a part out and trains it alone on the stored signals."""

    #: Of the student, the clean set and the signals.
    folders: tuple[Path, Path, Path]
    #: The teacher's counts [N, K], a row a validation text.
    teacher: np.ndarray
    task: Task
    wanted: AnyChosenPruning
    parts: Parts
    learn: Learn

    def __reduce__(self) -> tuple[Callable[..., Recovering], tuple[Any, ...]]:
        return open_recovering, (*self.folders, self.teacher, self.task, self.wanted)

    def __call__(self, recovery: Recovery) -> Recovered:
        task, point, yardstick = self.task, recovery.point, yardstick_of(self.task)
        before = f"{yardstick.read(point.loss)} {yardstick.unit_of_loss} lost to the teacher before"
        print(f"{recovery.phase}: {point.slice}, {point.quantization}; {before}")
        with fixed(task, task.threads):
            bundle, records = self.learn(point.slice, recovery.phase)
            ours = self.parts.judged_alone(bundle)
            lost = yardstick.lost(ours, self.teacher, self.wanted.bootstrap_samples, task.seed)
            return Recovered(bundle.model.state_dict(), records, lost)


def open_recovering(
    student: Path, clean: Path, signals: Path, teacher: np.ndarray, task: Task, wanted: AnyChosenPruning
) -> Recovering:
    """Load what every recovery needs. Raises ModelError where the student is not elastic."""
    parts = open_parts(student, clean, task)
    folders = (student.absolute(), clean.absolute(), signals.absolute())
    return Recovering(folders, teacher, task, wanted, parts, parts.learner(signals, wanted))
