"""A student's objective over stored signals, shared by distillation and by recovery after pruning."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import Losses, StudentTraining
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families.base import Family, Outputs
from pipelines.signals import Signals
from pipelines.techniques import losses as terms
from pipelines.techniques.course import EpochRecord, Keeper, Score
from pipelines.techniques.lessons import Lesson, Reader, Reading
from pipelines.techniques.scoring import score
from pipelines.techniques.training import compact_embeddings, train
from pipelines.techniques.vocabulary.choices import uncut


def learn(
    family: Family,
    student: Bundle,
    lesson: Lesson,
    validation: Split,
    weights: Losses,
    settings: StudentTraining,
    *,
    max_length: int,
    seed: int,
    phase: str,
    epochs: int,
    keeper: Keeper,
) -> list[EpochRecord]:
    """Train a student in place on a lesson; one record an epoch. Raises ModelError where losses and tokenizers do not fit."""
    model, tokenizer = student.model, student.tokenizer
    reader = Reader(family, uncut(tokenizer), lesson, weights, max_length, settings.vocabulary_folds, seed)
    lengths = [len(row) for row in reader.whole.encoded]
    checked = family.encode(tokenizer, validation.texts, max_length)

    def objective(batch: np.ndarray, random: np.random.Generator) -> Tensor:
        return batch_loss(family, student, *reader.read(batch, random), weights)

    def validate() -> Score:
        return score(family, model, tokenizer, checked, validation.labels)

    with compact_embeddings(model, chain(reader.rows(), checked)):
        return train(
            model,
            lengths,
            objective,
            validate,
            settings,
            count=len,
            seed=seed,
            phase=phase,
            epochs=epochs,
            keeper=keeper,
        )


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
        # A student cut to fewer heads is narrower: the number of relation heads is free, and must divide both widths.
        heads = math.gcd(signals.teacher_heads, ours[0].shape[-1])
        total = total + weights.relation * terms.relation(ours, teacher, mask, heads)
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
