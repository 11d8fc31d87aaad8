"""A student's objective over stored signals, shared by distillation and by recovery after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import Losses, Training
from pipelines.data.clean import CleanData, Split
from pipelines.errors import ModelError
from pipelines.families.base import Family, Outputs, TokenIds
from pipelines.signals import Signals
from pipelines.techniques import losses as terms
from pipelines.techniques.scoring import score
from pipelines.techniques.training import EpochRecord, Score, compact_embeddings, train


@dataclass(frozen=True)
class Lesson:
    """What a student learns from: texts, true labels where there are any, and the teacher's rows."""

    texts: list[str]
    labels: np.ndarray
    rows: np.ndarray
    signals: Signals


def lesson_from(data: CleanData, signals: Signals) -> Lesson:
    """Training text and unlabelled text beside the teacher's rows. Raises DataError where the teacher has not seen a text."""
    texts = [*data.train.texts, *data.unlabelled]
    labels = np.array([*data.train.labels, *([terms.NO_LABEL] * len(data.unlabelled))], dtype=np.int64)
    return Lesson(texts, labels, signals.rows_of(texts), signals)


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
    encoded = family.encode(tokenizer, lesson.texts, max_length)
    if weights.wants_hidden or weights.relation > 0:
        _require_same_tokens(lesson, encoded)
    checked = family.encode(tokenizer, validation.texts, max_length)

    def objective(batch: np.ndarray) -> Tensor:
        return batch_loss(family, student, lesson, encoded, batch, weights)

    def validate() -> Score:
        return score(family, model, tokenizer, checked, validation.labels)

    with compact_embeddings(model, [*encoded, *checked]):
        return train(
            model, [len(row) for row in encoded], objective, validate, settings, seed=seed, phase=phase, epochs=epochs
        )


def batch_loss(
    family: Family, student: Bundle, lesson: Lesson, encoded: Sequence[TokenIds], batch: np.ndarray, weights: Losses
) -> Tensor:
    """The weighted sum of the recipe's losses over one batch of text indices."""
    matched = _matched_layers(family, student.model, lesson.signals) if weights.wants_hidden else []
    inputs = family.collate(student.tokenizer, [encoded[index] for index in batch])
    outputs = family.forward(student.model, inputs, [layer for layer, _ in matched], weights.relation > 0)
    rows = lesson.rows[batch]
    total = _logit_terms(
        outputs.logits.float(), lesson.signals.logits_of(rows), torch.from_numpy(lesson.labels[batch]), weights
    )
    for layer, stored in matched:
        total = total + _hidden_terms(
            outputs, layer, lesson.signals.padded(lesson.signals.hidden[stored], rows), weights
        ) / len(matched)
    if weights.relation > 0:
        theirs = [lesson.signals.padded(states, rows) for states in lesson.signals.relations]
        ours = [states.float() for states in outputs.relations]
        total = total + weights.relation * terms.relation(ours, theirs, outputs.mask, lesson.signals.teacher_heads)
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


def _hidden_terms(outputs: Outputs, layer: int, teacher: Tensor, weights: Losses) -> Tensor:
    student = outputs.hidden[layer].float()
    total = student.sum() * 0
    if weights.hidden_mse > 0:
        total = total + weights.hidden_mse * terms.hidden_mse(student, teacher, outputs.mask)
    if weights.hidden_cosine > 0:
        total = total + weights.hidden_cosine * terms.hidden_cosine(student, teacher, outputs.mask)
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


def _require_same_tokens(lesson: Lesson, encoded: Sequence[TokenIds]) -> None:
    """Per-token losses need the same tokens on both sides; their ids may differ."""
    for text, row, ids in zip(lesson.texts, lesson.rows, encoded, strict=True):
        theirs = len(lesson.signals.token_ids(int(row)))
        if len(ids) != theirs:
            raise ModelError(
                f"hidden-state and relation losses need the teacher's tokens, but {text[:60]!r} has {len(ids)} tokens for the student "
                f"and {theirs} for the teacher; set those losses to 0, or prune.vocabulary to null"
            )
