"""An elastic student opened for the search: its parts, its vocabularies, and what is estimated of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.bundle import Bundle
from pipelines.config import Search, StudentElastic, Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.errors import ModelError
from pipelines.exploring.estimating import CostTable, Measured, fit_table, probes_of
from pipelines.exploring.searching import Candidate
from pipelines.families import family_of
from pipelines.families.base import Family, TokenIds
from pipelines.techniques.elastic import extract, slices_of, view
from pipelines.techniques.scoring import score
from pipelines.techniques.shapes import Slice
from pipelines.techniques.vocabulary import prune_vocabulary
from pipelines.techniques.vocabulary.choices import Cut, cuts_of


@dataclass(frozen=True)
class Workshop:
    """What the search works on. It travels to another process as the folders that it was opened from."""

    folders: tuple[Path, Path]
    family: Family
    student: Bundle
    cuts: list[Cut]
    space: list[Slice]
    data: CleanData
    task: Task
    settings: Search
    #: Validation texts as each vocabulary cuts them.
    encoded: list[list[TokenIds]]

    @property
    def probes(self) -> list[Slice]:
        """The parts whose cost is measured first."""
        return probes_of(self.space)

    def __reduce__(self) -> tuple[Callable[..., Workshop], tuple[Path, Path, Task, Search]]:
        return open_workshop, (*self.folders, self.task, self.settings)

    def plain(self, part: Slice) -> Bundle:
        """A part as a model of its own, with its own vocabulary."""
        return plain(self.family, self.student, self.cuts[part.vocabulary], part)


def plain(family: Family, student: Bundle, cut: Cut, part: Slice) -> Bundle:
    """A part of an elastic student as a model of its own, with one of its vocabularies."""
    model = extract(family, student.model, part)
    return Bundle(model, prune_vocabulary(model, student.tokenizer, cut.kept), student.lineage)


def elastic_choice(student: Bundle) -> StudentElastic:
    """What the student was trained to hold. Raises ModelError where it is not elastic."""
    record = next(entry for entry in student.lineage["stages"] if entry["stage"] == "distill")
    if record["params"]["student"]["kind"] != "elastic":
        raise ModelError("the student is not elastic; set distill.student.kind to elastic and run `dvc repro distill`")
    return StudentElastic.model_validate(record["params"]["student"])


def open_workshop(student: Path, clean: Path, task: Task, settings: Search) -> Workshop:
    """Load an elastic student and the data. Raises ModelError where it is not one."""
    family, data = family_of(task), load_clean(clean)
    bundle = family.load(student)
    choice = elastic_choice(bundle)
    cuts = cuts_of(family, bundle, data.written, choice.vocabularies, task.max_length)
    encoded = [cut.encode(family, data.validation.texts, task.max_length) for cut in cuts]
    folders = (student.absolute(), clean.absolute())
    return Workshop(folders, family, bundle, cuts, slices_of(choice), data, task, settings, encoded)


@dataclass(frozen=True)
class Estimator:
    """What is estimated of a part: cost from the table, accuracy of the part in torch on validation, the same in every quantization."""

    workshop: Workshop
    tables: Mapping[str, CostTable]
    known: dict[Slice, float] = field(default_factory=dict)

    def of(self, part: Slice, quantization: str) -> Candidate:
        """The estimate of a part in a quantization."""
        cost = self.tables[quantization].of(part)
        return Candidate(part, quantization, cost.p50_ms, cost.bytes, self._accuracy(part))

    def _accuracy(self, part: Slice) -> float:
        if part not in self.known:
            shop = self.workshop
            model = view(shop.family, shop.student.model, part)
            labels, rows = shop.data.validation.labels, shop.encoded[part.vocabulary]
            self.known[part] = score(shop.family, model, shop.student.tokenizer, rows, labels).accuracy
        return self.known[part]


def estimator_of(workshop: Workshop, costs: Mapping[str, Mapping[Slice, Measured]]) -> Estimator:
    """An estimator from what the probes cost in each quantization."""
    return Estimator(workshop, {name: fit_table(measured) for name, measured in costs.items()})
