"""A chosen part cut from an elastic student and trained alone, in this process or in another, with the same weights at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import ChosenPruning, Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.exploring.parts import Parts, open_parts
from pipelines.exploring.points import Point
from pipelines.families import family_of
from pipelines.reproducible import fixed
from pipelines.signals import read_signals
from pipelines.techniques.distilling import learn
from pipelines.techniques.lessons import Lesson, lesson_from
from pipelines.techniques.levers import levers_left_out
from pipelines.techniques.metrics import Interval, difference_of_right
from pipelines.techniques.scoring import predict_logits
from pipelines.techniques.shapes import Slice
from pipelines.techniques.training import EpochRecord


@dataclass(frozen=True)
class Recovery:
    """A point to recover, and what its curve is called."""

    phase: str
    point: Point


@dataclass(frozen=True)
class Recovered:
    """A recovered part: its weights by name, a record an epoch, its accuracy on validation minus the teacher's."""

    weights: dict[str, Tensor]
    records: list[EpochRecord]
    difference: Interval


@dataclass(frozen=True)
class Recovering:
    """Cuts a part out and trains it alone on the stored signals."""

    #: Of the student, the clean set and the signals.
    folders: tuple[Path, Path, Path]
    #: Where the teacher is right, a row a validation text: [N] bool.
    right: np.ndarray
    task: Task
    wanted: ChosenPruning
    parts: Parts
    data: CleanData
    lesson: Lesson

    def __reduce__(self) -> tuple[Callable[..., Recovering], tuple[Any, ...]]:
        return open_recovering, (*self.folders, self.right, self.task, self.wanted)

    def __call__(self, recovery: Recovery) -> Recovered:
        task, point = self.task, recovery.point
        before = f"{point.accuracy_difference:+.2%} to the teacher before"
        print(f"{recovery.phase}: {point.slice}, {point.quantization}; {before}")
        with fixed(task, task.threads):
            bundle, records = self.learn(point.slice, recovery.phase)
            return Recovered(bundle.model.state_dict(), records, self._difference(bundle))

    def learn(self, part: Slice, phase: str) -> tuple[Bundle, list[EpochRecord]]:
        """A part as a model of its own, trained alone, and a record an epoch; one without layers has no lesson but the logits."""
        bundle, wanted = self.parts.plain(part), self.wanted
        records = learn(
            self.parts.family,
            bundle,
            self.lesson,
            self.data.validation,
            wanted.losses if part.layers else wanted.losses.of_logits,
            wanted.recovery,
            max_length=self.task.max_length,
            seed=self.task.seed,
            phase=phase,
            epochs=wanted.recovery.epochs,
        )
        return bundle, records

    def _difference(self, bundle: Bundle) -> Interval:
        """The recovered model's accuracy on validation, in torch, minus the teacher's."""
        validation = self.data.validation
        family = self.parts.family
        encoded = family.encode(bundle.tokenizer, validation.texts, self.task.max_length)
        predicted = predict_logits(family, bundle.model, bundle.tokenizer, encoded).argmax(-1).numpy()
        ours = predicted == np.array(validation.labels)
        return difference_of_right(ours, self.right, self.wanted.bootstrap_samples, self.task.seed)


def open_recovering(
    student: Path, clean: Path, signals: Path, right: np.ndarray, task: Task, wanted: ChosenPruning
) -> Recovering:
    """Load what every recovery needs. Raises ModelError where the student is not elastic."""
    family, data = family_of(task), load_clean(clean)
    parts = open_parts(student, family, data, task.max_length)
    lesson = lesson_from(data, read_signals(signals)).without(levers_left_out(parts.whole.lineage))
    folders = (student.absolute(), clean.absolute(), signals.absolute())
    return Recovering(folders, right, task, wanted, parts, data, lesson)
