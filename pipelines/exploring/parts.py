"""An elastic student opened: its parts, the one without layers beside them, and its vocabularies."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.bundle import WITHOUT_LAYERS, Bundle
from pipelines.config import StudentElastic
from pipelines.data.clean import CleanData
from pipelines.errors import ModelError
from pipelines.families.base import Family
from pipelines.techniques.elastic import extract, slices_of, view
from pipelines.techniques.shapes import Slice
from pipelines.techniques.vocabulary import prune_vocabulary
from pipelines.techniques.vocabulary.choices import Cut, cuts_of


@dataclass(frozen=True)
class Parts:
    """What an elastic student holds. Token ids of every vocabulary are the whole's until a part is cut out."""

    family: Family
    whole: Bundle
    #: The part without layers, where the recipe asks for it.
    without_layers: Bundle | None
    cuts: list[Cut]
    choice: StudentElastic

    @property
    def space(self) -> list[Slice]:
        """Every part: the whole first, those without layers last."""
        more = [Slice((), 0, 0, which) for which in range(len(self.cuts))] if self.without_layers is not None else []
        return slices_of(self.choice) + more

    def shared(self, part: Slice) -> Any:
        """A model of the part's shape that reads the whole's token ids and shares its weights."""
        return view(self.family, self.whole.model, part) if part.layers else self._required.model

    def plain(self, part: Slice) -> Bundle:
        """A part as a model of its own, with its own vocabulary."""
        model = extract(self.family, self.whole.model, part) if part.layers else copy.deepcopy(self._required.model)
        tokenizer = prune_vocabulary(model, self.whole.tokenizer, self.cuts[part.vocabulary].kept)
        return Bundle(model, tokenizer, self.whole.lineage)

    @property
    def _required(self) -> Bundle:
        if self.without_layers is None:
            raise ModelError(
                "the elastic student has no part without layers; set distill.student.without_layers and run `dvc repro distill`"
            )
        return self.without_layers


def open_parts(student: Path, family: Family, data: CleanData, max_length: int) -> Parts:
    """Load an elastic student. Raises ModelError where it is not one."""
    whole = family.load(student)
    choice = _choice_of(whole)
    beside = family.load(student / WITHOUT_LAYERS) if choice.without_layers is not None else None
    return Parts(family, whole, beside, cuts_of(family, whole, data.written, choice.vocabularies, max_length), choice)


def _choice_of(student: Bundle) -> StudentElastic:
    record = next(entry for entry in student.lineage["stages"] if entry["stage"] == "distill")
    if record["params"]["student"]["kind"] != "elastic":
        raise ModelError("the student is not elastic; set distill.student.kind to elastic and run `dvc repro distill`")
    return StudentElastic.model_validate(record["params"]["student"])
