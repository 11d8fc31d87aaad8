"""An elastic student opened for the search: its parts and the data, and what is estimated of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.config import AnySearch, Task
from pipelines.exploring.estimating import CostTable, Measured, fit_table, probes_of
from pipelines.exploring.parts import Parts, open_parts
from pipelines.exploring.searching import Candidate
from pipelines.exploring.sides import sides_of
from pipelines.exploring.targets import Questions
from pipelines.exploring.yardsticks import Yardstick, yardstick_of
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Workshop:
    """What the search works on. It travels to another process as the folders that it was opened from."""

    folders: tuple[Path, Path]
    parts: Parts
    space: list[Slice]
    task: Task
    settings: AnySearch

    @property
    def yardstick(self) -> Yardstick:
        """What the parts are judged by."""
        return yardstick_of(self.task)

    @cached_property
    def timed(self) -> list[int]:
        """Rows of the validation texts that everything is timed on, however often: a random sample, for files may be in order."""
        rng = np.random.default_rng(self.task.seed)
        validation = self.parts.data.validation.texts
        rows: list[int] = rng.permutation(len(validation))[: self.settings.latency_rounds].tolist()
        return rows

    @property
    def questions(self) -> Questions:
        """What is asked of these rows."""
        return sides_of(self.task).questions(self.parts, self.timed, self.settings)

    @property
    def probes(self) -> list[Slice]:
        """The parts whose cost is measured first."""
        return probes_of(self.space)

    def __reduce__(self) -> tuple[Callable[..., Workshop], tuple[Path, Path, Task, AnySearch]]:
        return open_workshop, (*self.folders, self.task, self.settings)


def open_workshop(student: Path, clean: Path, task: Task, settings: AnySearch) -> Workshop:
    """Load an elastic student and the data. Raises ModelError where it is not one."""
    parts = open_parts(student, clean, task)
    return Workshop((student.absolute(), clean.absolute()), parts, parts.space, task, settings)


@dataclass(frozen=True)
class Estimator:
    """What is estimated of a part: cost from the table; the loss of the part in torch on validation, and what the quantization took from the probes."""

    workshop: Workshop
    tables: Mapping[str, CostTable]
    #: Quantization -> what it loses, in the yardstick's unit; below 0 where it wins some.
    lost: Mapping[str, float]
    #: The teacher's number on the same texts.
    teacher: float
    known: dict[Slice, float] = field(default_factory=dict)

    def of(self, part: Slice, quantization: str) -> Candidate:
        """The estimate of a part in a quantization."""
        cost = self.tables[quantization].of(part)
        return Candidate(part, quantization, cost.p50_ms, cost.bytes, self._loss(part) + self.lost[quantization])

    def _loss(self, part: Slice) -> float:
        if part not in self.known:
            yardstick = self.workshop.yardstick
            self.known[part] = yardstick.loss(yardstick.of(self.workshop.parts.judged(part, None)), self.teacher)
        return self.known[part]


def estimator_of(
    workshop: Workshop, costs: Mapping[str, Mapping[Slice, Measured]], lost: Mapping[str, float], teacher: float
) -> Estimator:
    """An estimator from what the probes cost in each quantization, and what each takes from their number."""
    return Estimator(workshop, {name: fit_table(measured) for name, measured in costs.items()}, lost, teacher)
