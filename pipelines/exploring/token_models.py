"""The parts of an elastic model that answers token by token: one that continues texts, or a tagger."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import (
    AnyChosenPruning,
    ChosenShape,
    ElasticTokens,
    Task,
)
from pipelines.data.clean import CleanData, Split
from pipelines.exploring.parts import Learn, elastic_choice
from pipelines.families import sequence_family_of
from pipelines.families.sequences import Batch, Example, Rows, SequenceFamily
from pipelines.sequences.lessons import lesson_from_labels
from pipelines.sequences.quality import counts_of
from pipelines.sequences.sides.predicting import predictions
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.shapes import Slice
from pipelines.techniques.token_elastic import Anatomy, View, anatomy_of, token_slices
from pipelines.techniques.token_learning import learn_tokens
from pipelines.techniques.vocabulary import check_vocabulary, ids_in_use, kept_tokens, prune_vocabulary


def open_token_model(student: Path, data: CleanData, task: Task) -> TokenParts:
    """Load an elastic model, and find what its parts are cut along. Raises ModelError where it is not one."""
    family = sequence_family_of(task)
    whole = family.load(student)
    choice = ElasticTokens.model_validate(elastic_choice(whole))
    return TokenParts(family, whole, choice, data, task, anatomy_of(whole.model, choice))


@dataclass(frozen=True)
class TokenParts:
    """What an elastic model holds. All parts have the whole's vocabulary until one is cut out. See Parts."""

    family: SequenceFamily
    whole: Bundle
    choice: ElasticTokens
    data: CleanData
    task: Task
    anatomy: Anatomy

    @property
    def space(self) -> list[Slice]:
        return token_slices(self.choice)

    @cached_property
    def _kept(self) -> list[int] | None:
        """The tokens that stay in every part; None where all do."""
        if self.choice.vocabulary is None:
            return None
        whole = self.family.examples(self.whole, self.data.train, self.task.max_length)
        seen = [example.seen for example in whole]
        return kept_tokens(self.whole.tokenizer, seen, self.choice.vocabulary, ids_in_use(self.whole.model))

    def tokens(self, part: Slice) -> int:
        return len(self.whole.tokenizer) if self._kept is None else len(self._kept)

    def plain(self, part: Slice) -> Bundle:
        return self._with_its_tokens(self.anatomy.plain(self.whole.model, part))

    def _with_its_tokens(self, model: Any) -> Bundle:
        if self._kept is None:
            return Bundle(model, self.whole.tokenizer, self.whole.lineage)
        prune_vocabulary(model, self.whole.tokenizer, self._kept)
        return Bundle(model, self._smaller, self.whole.lineage)

    @cached_property
    def _smaller(self) -> Any:
        """The tokenizer of every part, once it is known to cut the training text as the whole's does."""
        before, kept = self.whole.tokenizer, self._kept
        assert kept is not None
        smaller = prune_vocabulary(copy.deepcopy(self.whole.model), before, kept)
        check_vocabulary(before, smaller, kept, [*self.data.train.texts, *self.data.train.targets])
        return smaller

    @cached_property
    def examples(self) -> list[Example]:
        """The training rows in the tokens of the parts."""
        return self.family.examples(self.plain(self.space[-1]), self.data.train, self.task.max_length)

    def judged(self, part: Slice, rows: Sequence[int] | None) -> np.ndarray:
        split = self.data.validation if rows is None else self.data.validation.of(rows)
        view = View(self.whole.model, part, self.anatomy)
        return view.run(lambda model: self._counts(Bundle(model, self.whole.tokenizer, {}), split), training=False)

    def judged_alone(self, bundle: Bundle) -> np.ndarray:
        return self._counts(bundle, self.data.validation)

    def _counts(self, bundle: Bundle, split: Split) -> np.ndarray:
        def rows(batch: Batch) -> Rows:
            return self.family.rows(bundle.model, batch)

        found = predictions(self.family, bundle, split, self.task.max_length, rows)
        return counts_of(self.task, split, found)

    def learner(self, signals: Path, wanted: AnyChosenPruning, keeper: Keeper) -> Learn:
        """The vocabulary goes last: signals are of the teacher's tokens, and a kept token's logit does not change when others go."""
        assert isinstance(wanted, ChosenShape)
        family, task = self.family, self.task
        lesson = lesson_from_labels(signals, family, self.whole, self.data.train, task, wanted.losses, "prune")
        checked = family.examples(self.whole, self.data.validation, task.max_length)

        def recover(part: Slice, phase: str) -> tuple[Bundle, list[EpochRecord]]:
            bundle = Bundle(self.anatomy.plain(self.whole.model, part), self.whole.tokenizer, {})
            records = learn_tokens(
                family,
                bundle,
                lesson,
                checked,
                wanted.losses,
                wanted.recovery,
                seed=task.seed,
                phase=phase,
                epochs=wanted.recovery.epochs,
                keeper=keeper,
            )
            return self._with_its_tokens(bundle.model), records

        return recover
