"""A student's objective over stored signals, shared by distillation and by recovery after pruning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import Losses, Training
from pipelines.data.clean import CleanData, Split
from pipelines.data.rows import UNLABELLED
from pipelines.errors import ModelError
from pipelines.families.base import Family, Outputs, TokenIds
from pipelines.signals import Signals
from pipelines.techniques import losses as terms
from pipelines.techniques.scoring import score
from pipelines.techniques.training import EpochRecord, Score, compact_embeddings, train


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
    """A lesson as one student reads it: its token ids, and which texts it cuts into the teacher's tokens."""

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
    if (weights.wants_hidden or weights.relation > 0) and alike.mean() < 0.5:
        text = lesson.texts[int(np.argmin(alike))]
        raise ModelError(
            f"hidden-state and relation losses need the teacher's tokens, but student and teacher cut {(~alike).mean():.0%} of the texts "
            f"differently, {text[:60]!r} among them; set those losses to 0, or keep more of the vocabulary"
        )
    return Reading(lesson, encoded, alike)


def learn(
    family: Family,
    student: Bundle,
    lesson: Lesson,
    validation: Split,
    weights: Losses,
    settings: Training,
    *,
    max_length: int,
    seed: int,
    phase: str,
    epochs: int,
) -> list[EpochRecord]:
    """Train a student in place on a lesson; one record an epoch. Raises ModelError where losses and tokenizers do not fit."""
    model, tokenizer = student.model, student.tokenizer
    reading = read_lesson(family, tokenizer, lesson, weights, max_length)
    lengths = [len(row) for row in reading.encoded]
    checked = family.encode(tokenizer, validation.texts, max_length)

    def objective(batch: np.ndarray) -> Tensor:
        return batch_loss(family, student, reading, batch, weights)

    def validate() -> Score:
        return score(family, model, tokenizer, checked, validation.labels)

    with compact_embeddings(model, [*reading.encoded, *checked]):
        return train(model, lengths, objective, validate, settings, seed=seed, phase=phase, epochs=epochs)


def batch_loss(family: Family, student: Bundle, reading: Reading, batch: np.ndarray, weights: Losses) -> Tensor:
    """The weighted sum of the recipe's losses over one batch of text indices."""
    return answered_loss(family, student, reading, batch, weights)[0]


def answered_loss(
    family: Family, student: Bundle, reading: Reading, batch: np.ndarray, weights: Losses
) -> tuple[Tensor, Tensor]:
    """`batch_loss`, and the student's logits [B, C]."""
    lesson, signals = reading.lesson, reading.lesson.signals
    matched = _matched_layers(family, student.model, signals) if weights.wants_hidden else []
    inputs = family.collate(student.tokenizer, [reading.encoded[index] for index in batch])
    outputs = family.forward(student.model, inputs, [layer for layer, _ in matched], weights.relation > 0)
    rows, labels = lesson.rows[batch], torch.from_numpy(lesson.labels[batch])
    total = _logit_terms(outputs.logits.float(), signals.logits_of(rows), labels, weights)
    alike = np.flatnonzero(reading.alike[batch])
    if len(alike) and (matched or weights.relation > 0):
        total = total + _token_terms(outputs, matched, signals, rows[alike], torch.from_numpy(alike), weights)
    return total, outputs.logits


def _token_terms(
    outputs: Outputs, matched: list[tuple[int, int]], signals: Signals, rows: np.ndarray, alike: Tensor, weights: Losses
) -> Tensor:
    """The losses a token, over the texts of a batch that both sides cut alike."""
    mask = outputs.mask[alike]
    total = outputs.logits.float().sum() * 0
    for layer, stored in matched:
        theirs = signals.padded(signals.hidden[stored], rows, mask.shape[1])
        total = total + _hidden_terms(outputs.hidden[layer][alike].float(), theirs, mask, weights) / len(matched)
    if weights.relation > 0:
        ours = [states[alike].float() for states in outputs.relations]
        teacher = [signals.padded(states, rows, mask.shape[1]) for states in signals.relations]
        total = total + weights.relation * terms.relation(ours, teacher, mask, signals.teacher_heads)
    return total


def _logit_terms(student: Tensor, teacher: Tensor, labels: Tensor, weights: Losses) -> Tensor:
    total = student.sum() * 0
    if weights.kl > 0:
        total = total + weights.kl * terms.kl(student, teacher, weights.temperature)
    if weights.reverse_kl > 0:
        total = total + weights.reverse_kl * terms.reverse_kl(student, teacher, weights.temperature)
    if weights.cross_entropy > 0:
        total = total + weights.cross_entropy * terms.cross_entropy(student, labels)
    return total


def _hidden_terms(student: Tensor, teacher: Tensor, mask: Tensor, weights: Losses) -> Tensor:
    total = student.sum() * 0
    if weights.hidden_mse > 0:
        total = total + weights.hidden_mse * terms.hidden_mse(student, teacher, mask)
    if weights.hidden_cosine > 0:
        total = total + weights.hidden_cosine * terms.hidden_cosine(student, teacher, mask)
    return total


def _matched_layers(family: Family, model: Any, signals: Signals) -> list[tuple[int, int]]:
    """(student layer, teacher layer) pairs whose teacher side is stored."""
    pairs = [
        (ours, theirs)
        for ours, theirs in enumerate(family.teacher_layers(model))
        if theirs is not None and theirs in signals.hidden
    ]
    if not pairs:
        raise ModelError(
            f"hidden-state losses: the student answers to teacher layers {family.teacher_layers(model)}, "
            f"stored are {sorted(signals.hidden)}; add one of the former to label.hidden_layers"
        )
    width, stored = model.config.hidden_size, signals.hidden[pairs[0][1]].shape[1]
    if width != stored:
        raise ModelError(
            f"hidden-state losses: the student is {width} wide, the teacher {stored}; set hidden_mse and hidden_cosine to 0"
        )
    return pairs
