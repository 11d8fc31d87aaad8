"""A chosen part cut from an elastic student and trained alone, in this process or in another, with the same weights at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import AnyChosenPruning, Task
from pipelines.exploring.parts import Learn, Parts, open_parts
from pipelines.exploring.yardsticks import yardstick_of
from pipelines.reproducible import fixed
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.metrics import Interval
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Recovery:
    """A part to recover, and what its curve is called."""

    phase: str
    part: Slice


@dataclass(frozen=True)
class Recovered:
    """A recovered part: its weights by name, a record an epoch, what it has lost to the teacher on validation.

    `before` is the task's number of the part as it was cut out. All is of torch.
    """

    weights: dict[str, Tensor]
    records: list[EpochRecord]
    lost: Interval
    before: float


@dataclass(frozen=True)
class Recovering:
    """Cuts a part out and trains it alone on the stored signals. Where that made it worse, it stays as it was cut out."""

    #: Of the student, the clean set and the signals.
    folders: tuple[Path, Path, Path]
    #: The teacher's counts [N, K], a row a validation text.
    teacher: np.ndarray
    task: Task
    wanted: AnyChosenPruning
    parts: Parts
    learn: Learn
    keeper: Keeper

    def __reduce__(self) -> tuple[Callable[..., Recovering], tuple[Any, ...]]:
        return open_recovering, (*self.folders, self.teacher, self.task, self.wanted, self.keeper)

    def __call__(self, recovery: Recovery) -> Recovered:
        task, yardstick = self.task, yardstick_of(self.task)
        with fixed(task, task.threads):
            plain = self.parts.plain(recovery.part)
            number, before = self._judged(plain)
            told = f"{yardstick.read(before.value)} {yardstick.unit_of_loss} lost to the teacher"
            print(f"{recovery.phase}: {recovery.part}; {told} as it was cut out")
            bundle, records = self.learn(recovery.part, recovery.phase)
            _, after = self._judged(bundle)
            if after.high < before.high:
                return Recovered(bundle.model.state_dict(), records, after, number)
            print(
                f"{recovery.phase}: {yardstick.read(after.value)} after recovery, no better: the part stays as it was"
            )
            return Recovered(plain.model.state_dict(), records, before, number)

    def _judged(self, bundle: Bundle) -> tuple[float, Interval]:
        """The task's number of a part as a model of its own, and what it has lost to the teacher."""
        ours, yardstick = self.parts.judged_alone(bundle), yardstick_of(self.task)
        lost = yardstick.lost(ours, self.teacher, self.wanted.bootstrap_samples, self.task.seed)
        return yardstick.of(ours), lost


def open_recovering(
    student: Path,
    clean: Path,
    signals: Path,
    teacher: np.ndarray,
    task: Task,
    wanted: AnyChosenPruning,
    keeper: Keeper,
) -> Recovering:
    """Load what every recovery needs. Raises ModelError where the student is not elastic."""
    parts = open_parts(student, clean, task)
    folders = (student.absolute(), clean.absolute(), signals.absolute())
    return Recovering(folders, teacher, task, wanted, parts, parts.learner(signals, wanted, keeper), keeper)
