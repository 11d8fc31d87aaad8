"""The parts of an elastic text classifier."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import WITHOUT_LAYERS, Bundle
from pipelines.config import AnyChosenPruning, ChosenPruning, Losses, StudentElastic, Task
from pipelines.data.clean import CleanData
from pipelines.errors import ModelError
from pipelines.exploring.parts import Learn, elastic_choice
from pipelines.exploring.yardsticks import right_counts
from pipelines.families import family_of
from pipelines.families.base import Family, TokenIds
from pipelines.signals import read_signals
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.distilling import learn
from pipelines.techniques.elastic import extract, slices_of, view
from pipelines.techniques.lessons import Lesson, lesson_from, losses_that_fit
from pipelines.techniques.levers import levers_left_out
from pipelines.techniques.scoring import predict_logits
from pipelines.techniques.shapes import Slice
from pipelines.techniques.vocabulary import prune_vocabulary
from pipelines.techniques.vocabulary.choices import Cut, cuts_of


def open_classifier(student: Path, data: CleanData, task: Task) -> ClassifierParts:
    """Load an elastic classifier, and what stands beside it without layers. Raises ModelError where it is not one."""
    family = family_of(task)
    whole = family.load(student)
    choice = StudentElastic.model_validate(elastic_choice(whole))
    beside = family.load(student / WITHOUT_LAYERS) if choice.without_layers is not None else None
    cuts = cuts_of(family, whole, data.written, choice.vocabularies, task.max_length)
    encoded = [cut.encode(family, data.validation.texts, task.max_length) for cut in cuts]
    return ClassifierParts(family, whole, beside, cuts, choice, data, task, encoded)


@dataclass(frozen=True)
class ClassifierParts:
    """What an elastic classifier holds. Token ids of every vocabulary are the whole's until a part is cut out. See Parts."""

    family: Family
    whole: Bundle
    #: The part without layers, where the recipe asks for it.
    without_layers: Bundle | None
    cuts: list[Cut]
    choice: StudentElastic
    data: CleanData
    task: Task
    #: Validation texts as each vocabulary cuts them.
    encoded: list[list[TokenIds]]

    @property
    def space(self) -> list[Slice]:
        more = [Slice((), 0, 0, which) for which in range(len(self.cuts))] if self.without_layers is not None else []
        return slices_of(self.choice) + more

    def tokens(self, part: Slice) -> int:
        return len(self.cuts[part.vocabulary].kept)

    def shared(self, part: Slice) -> Any:
        """A model of the part's shape that reads the whole's token ids and shares its weights."""
        return view(self.family, self.whole.model, part) if part.layers else self._required.model

    def plain(self, part: Slice) -> Bundle:
        model = extract(self.family, self.whole.model, part) if part.layers else copy.deepcopy(self._required.model)
        tokenizer = prune_vocabulary(model, self.whole.tokenizer, self.cuts[part.vocabulary].kept)
        return Bundle(model, tokenizer, self.whole.lineage)

    def judged(self, part: Slice, rows: Sequence[int] | None) -> np.ndarray:
        encoded, labels = self.encoded[part.vocabulary], self.data.validation.labels
        if rows is not None:
            encoded, labels = [encoded[row] for row in rows], [labels[row] for row in rows]
        return self._right(self.shared(part), self.whole.tokenizer, encoded, labels)

    def judged_alone(self, bundle: Bundle) -> np.ndarray:
        validation = self.data.validation
        encoded = self.family.encode(bundle.tokenizer, validation.texts, self.task.max_length)
        return self._right(bundle.model, bundle.tokenizer, encoded, validation.labels)

    def _right(self, model: Any, tokenizer: Any, encoded: Sequence[TokenIds], labels: Sequence[int]) -> np.ndarray:
        predicted = predict_logits(self.family, model, tokenizer, encoded).argmax(-1).numpy()
        return right_counts(predicted == np.array(labels))

    def lesson(self, signals: Path) -> Lesson:
        """The stored signals but for those of levers that did not help the student."""
        return lesson_from(self.data, read_signals(signals)).without(levers_left_out(self.whole.lineage))

    def learner(self, signals: Path, wanted: AnyChosenPruning, keeper: Keeper) -> Learn:
        """A part without layers has no lesson but the logits."""
        assert isinstance(wanted, ChosenPruning)
        lesson = self.lesson(signals)

        def recover(part: Slice, phase: str) -> tuple[Bundle, list[EpochRecord]]:
            bundle = self.plain(part)
            records = learn(
                self.family,
                bundle,
                lesson,
                self.data.validation,
                self._losses(part, bundle.tokenizer, lesson, wanted.losses),
                wanted.recovery,
                max_length=self.task.max_length,
                seed=self.task.seed,
                phase=phase,
                epochs=wanted.recovery.epochs,
                keeper=keeper,
            )
            return bundle, records

        return recover

    def _losses(self, part: Slice, tokenizer: Any, lesson: Lesson, wanted: Losses) -> Losses:
        """What a part can learn from: one of a smaller vocabulary may cut too many texts otherwise than the teacher."""
        if not part.layers:
            return wanted.of_logits
        if part.vocabulary == 0:
            return wanted
        return losses_that_fit(self.family, tokenizer, lesson, wanted, self.task.max_length)

    @property
    def _required(self) -> Bundle:
        if self.without_layers is None:
            raise ModelError(
                "the elastic student has no part without layers; set distill.student.without_layers and run `dvc repro distill`"
            )
        return self.without_layers
