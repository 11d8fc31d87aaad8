"""An elastic student opened for the search: its parts and the data, and what is estimated of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.config import Search, Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.exploring.estimating import CostTable, Measured, fit_table, probes_of
from pipelines.exploring.parts import Parts, open_parts
from pipelines.exploring.searching import Candidate
from pipelines.families import family_of
from pipelines.families.base import TokenIds
from pipelines.techniques.scoring import score
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Workshop:
    """What the search works on. It travels to another process as the folders that it was opened from."""

    folders: tuple[Path, Path]
    parts: Parts
    space: list[Slice]
    data: CleanData
    task: Task
    settings: Search
    #: Validation texts as each vocabulary cuts them.
    encoded: list[list[TokenIds]]

    @cached_property
    def timed(self) -> list[int]:
        """Rows of the validation texts that everything is timed on, however often: a random sample, for files may be in order."""
        rng = np.random.default_rng(self.task.seed)
        rows: list[int] = rng.permutation(len(self.data.validation.texts))[: self.settings.latency_rounds].tolist()
        return rows

    @property
    def timed_texts(self) -> list[str]:
        """The texts in these rows."""
        return [self.data.validation.texts[row] for row in self.timed]

    @property
    def probes(self) -> list[Slice]:
        """The parts whose cost is measured first."""
        return probes_of(self.space)

    def __reduce__(self) -> tuple[Callable[..., Workshop], tuple[Path, Path, Task, Search]]:
        return open_workshop, (*self.folders, self.task, self.settings)


def open_workshop(student: Path, clean: Path, task: Task, settings: Search) -> Workshop:
    """Load an elastic student and the data. Raises ModelError where it is not one."""
    family, data = family_of(task), load_clean(clean)
    parts = open_parts(student, family, data, task.max_length)
    encoded = [cut.encode(family, data.validation.texts, task.max_length) for cut in parts.cuts]
    return Workshop((student.absolute(), clean.absolute()), parts, parts.space, data, task, settings, encoded)


@dataclass(frozen=True)
class Estimator:
    """What is estimated of a part: cost from the table; accuracy of the part in torch on validation, and what the quantization took from the probes."""

    workshop: Workshop
    tables: Mapping[str, CostTable]
    #: Quantization -> share of right answers that it adds, below 0 where it costs some.
    gains: Mapping[str, float]
    known: dict[Slice, float] = field(default_factory=dict)

    def of(self, part: Slice, quantization: str) -> Candidate:
        """The estimate of a part in a quantization."""
        cost = self.tables[quantization].of(part)
        return Candidate(part, quantization, cost.p50_ms, cost.bytes, self._accuracy(part) + self.gains[quantization])

    def _accuracy(self, part: Slice) -> float:
        if part not in self.known:
            shop, parts = self.workshop, self.workshop.parts
            labels, rows = shop.data.validation.labels, shop.encoded[part.vocabulary]
            self.known[part] = score(parts.family, parts.shared(part), parts.whole.tokenizer, rows, labels).accuracy
        return self.known[part]


def estimator_of(
    workshop: Workshop, costs: Mapping[str, Mapping[Slice, Measured]], gains: Mapping[str, float]
) -> Estimator:
    """An estimator from what the probes cost in each quantization, and what each adds to their share of right answers."""
    return Estimator(workshop, {name: fit_table(measured) for name, measured in costs.items()}, gains)
