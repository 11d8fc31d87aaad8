"""What the search and recovery ask of an elastic student, whatever its task: its parts, what each answers, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import AnyChosenPruning, Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.errors import ModelError
from pipelines.exploring.yardsticks import yardstick_of
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.shapes import Slice

#: Cuts a part out and trains it alone, by the name of its curve: a model of its own, and a record an epoch.
Learn = Callable[[Slice, str], tuple[Bundle, list[EpochRecord]]]


class Parts(Protocol):
    """An elastic student, opened beside its data. Counts [N, K] are of validation texts, as the task's yardstick reads them."""

    @property
    def whole(self) -> Bundle:
        """The elastic student."""

    @property
    def data(self) -> CleanData:
        """What it is judged on."""

    @property
    def space(self) -> list[Slice]:
        """Every part: the whole first, those without layers last."""

    def tokens(self, part: Slice) -> int:
        """Tokens of a part's vocabulary."""

    def plain(self, part: Slice) -> Bundle:
        """A part as a model of its own."""

    def judged(self, part: Slice, rows: Sequence[int] | None) -> np.ndarray:
        """Counts of a part in torch before any export; of some rows alone where they are named."""

    def judged_alone(self, bundle: Bundle) -> np.ndarray:
        """Counts, in torch, of what `plain` answers or `Learn` made of it."""

    def learner(self, signals: Path, wanted: AnyChosenPruning, keeper: Keeper) -> Learn:
        """What recovers parts on the stored signals."""


def open_parts(student: Path, clean: Path, task: Task) -> Parts:
    """Load an elastic student and its data. Raises RecipeError for a task without any, ModelError where this is none."""
    yardstick_of(task)
    data = load_clean(clean)
    if task.type == "text-classification":
        from pipelines.exploring.classifiers import open_classifier

        return open_classifier(student, data, task)
    from pipelines.exploring.token_models import open_token_model

    return open_token_model(student, data, task)


def elastic_choice(student: Bundle) -> dict[str, Any]:
    """What the recipe said of an elastic student. Raises ModelError where it is not one."""
    record = next(entry for entry in student.lineage["stages"] if entry["stage"] == "distill")
    choice: dict[str, Any] = record["params"]["student"]
    if choice["kind"] != "elastic":
        raise ModelError("the student is not elastic; set distill.student.kind to elastic and run `dvc repro distill`")
    return choice
