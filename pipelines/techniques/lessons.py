"""What a student learns from, and how it reads it: as its tokenizer cuts the texts, or each batch without another part of the vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np

from pipelines.config import Losses
from pipelines.data.clean import CleanData
from pipelines.data.rows import UNLABELLED
from pipelines.errors import ModelError
from pipelines.families.base import Family, TokenIds
from pipelines.signals import Signals
from pipelines.techniques import losses as terms
from pipelines.techniques.vocabulary.choices import Cut
from pipelines.techniques.vocabulary.folds import folds_of

#: Texts that are cut at once where all that counts is which tokens come up.
TEXTS_AT_ONCE = 1024
#: Share of the texts that student and teacher must cut alike where losses a token are to say anything.
ENOUGH_ALIKE = 0.5


@dataclass(frozen=True)
class Lesson:
    """What a student learns from: texts, true labels where there are any, the teacher's rows, and what each text is there for.

    `levers` names the texts beside the training text by what brought them, as places in `texts`.
    """

    texts: list[str]
    labels: np.ndarray
    rows: np.ndarray
    signals: Signals
    levers: Mapping[str, range]

    def of(self, places: Sequence[int]) -> Lesson:
        """Some of its texts, one of them as often as it is named."""
        chosen = np.asarray(places, dtype=np.int64)
        return Lesson([self.texts[at] for at in chosen], self.labels[chosen], self.rows[chosen], self.signals, {})

    def without(self, levers: Collection[str]) -> Lesson:
        """All but the texts of some levers."""
        left = {name: places for name, places in self.levers.items() if name not in levers}
        if len(left) == len(self.levers):
            return self
        given = range(len(self.texts) - sum(map(len, self.levers.values())))
        return self.of([*given, *chain.from_iterable(left.values())])


@dataclass(frozen=True)
class Reading:
    """A lesson as one student reads it: its token ids, and which of the N texts it cuts into the teacher's tokens, [N] bool."""

    lesson: Lesson
    encoded: list[TokenIds]
    alike: np.ndarray


def lesson_from(data: CleanData, signals: Signals) -> Lesson:
    """Training, unlabelled and synthetic text beside the teacher's rows. Raises DataError where the teacher has not seen a text."""
    texts, levers = list(data.train.texts), {}
    for name, extra in {UNLABELLED: data.unlabelled, **signals.levers}.items():
        if extra:
            levers[name] = range(len(texts), len(texts) + len(extra))
            texts += extra
    without_label = [terms.NO_LABEL] * (len(texts) - len(data.train.texts))
    labels = np.array([*data.train.labels, *without_label], dtype=np.int64)
    return Lesson(texts, labels, signals.rows_of(texts), signals, levers)


def read_lesson(family: Family, tokenizer: Any, lesson: Lesson, weights: Losses, max_length: int) -> Reading:
    """Encode a lesson for a student.

    Losses a token read only the texts that both sides cut alike; ModelError where that is less than half of them.
    """
    encoded = family.encode(tokenizer, lesson.texts, max_length)
    alike = lesson.signals.cut_alike(lesson.rows, tokenizer, encoded)
    if (weights.wants_hidden or weights.relation > 0) and alike.mean() < ENOUGH_ALIKE:
        text = lesson.texts[int(np.argmin(alike))]
        raise ModelError(
            f"hidden-state and relation losses need the teacher's tokens, but student and teacher cut {(~alike).mean():.0%} of the texts "
            f"differently, {text[:60]!r} among them; set those losses to 0, or keep more of the vocabulary"
        )
    return Reading(lesson, encoded, alike)


def losses_that_fit(family: Family, tokenizer: Any, lesson: Lesson, weights: Losses, max_length: int) -> Losses:
    """The losses, without those a token where `read_lesson` would refuse them."""
    encoded = family.encode(tokenizer, lesson.texts, max_length)
    alike = lesson.signals.cut_alike(lesson.rows, tokenizer, encoded)
    return weights if alike.mean() >= ENOUGH_ALIKE else weights.of_logits


class Reader:
    """A lesson as it is read in training: batch by batch, each without another fold of the vocabulary where the recipe has folds.

    A fold is drawn anew for each batch, the whole vocabulary as often as any of them; ids are those of the student that the vocabulary
    is cut from. Raises ModelError as `read_lesson` and `folds_of`.
    """

    def __init__(
        self, family: Family, cut: Cut, lesson: Lesson, weights: Losses, max_length: int, folds: int | None, seed: int
    ) -> None:
        reading = read_lesson(family, cut.tokenizer, lesson, weights, max_length)
        self.whole = Reading(lesson, cut.of_the_whole(reading.encoded), reading.alike)
        self._family, self._cut, self._max_length = family, cut, max_length
        self._folds = folds_of(cut.tokenizer, folds, seed) if folds is not None else []

    def read(self, batch: np.ndarray, random: np.random.Generator) -> tuple[Reading, np.ndarray]:
        """A reading that has a batch of text indices [B], and the places of the batch's texts in it, [B] too."""
        drawn = int(random.integers(0, len(self._folds) + 1))
        if drawn == len(self._folds):
            return self.whole, batch
        lesson = self.whole.lesson.of(batch.tolist())
        encoded = self._folds[drawn].encode(self._family, lesson.texts, self._max_length)
        alike = lesson.signals.cut_alike(lesson.rows, self._cut.tokenizer, encoded)
        return Reading(lesson, self._cut.of_the_whole(encoded), alike), np.arange(len(batch))

    def rows(self) -> Iterator[TokenIds]:
        """Every text in every way that it may be read."""
        yield from self.whole.encoded
        texts = self.whole.lesson.texts
        for fold, start in product(self._folds, range(0, len(texts), TEXTS_AT_ONCE)):
            some = texts[start : start + TEXTS_AT_ONCE]
            yield from self._cut.of_the_whole(fold.encode(self._family, some, self._max_length))
