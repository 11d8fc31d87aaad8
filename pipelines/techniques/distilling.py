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
from pipelines.techniques.training import Piece, compact_embeddings, train
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

    def objective(piece: Piece, random: np.random.Generator) -> Tensor:
        reading, whole = reader.read(piece.batch, random)
        return answered_loss(family, student, reading, whole, piece.places, weights)[0]

    def validate() -> Score:
        return score(family, model, tokenizer, checked, validation.labels)

    with compact_embeddings(model, chain(reader.rows(), checked)):
        return train(
            model,
            lengths,
            objective,
            validate,
            settings,
            seed=seed,
            phase=phase,
            epochs=epochs,
            keeper=keeper,
        )


def batch_loss(family: Family, student: Bundle, reading: Reading, batch: np.ndarray, weights: Losses) -> Tensor:
    """The weighted sum of the recipe's losses over one batch of text indices."""
    return answered_loss(family, student, reading, batch, np.arange(len(batch)), weights)[0]


def answered_loss(
    family: Family, student: Bundle, reading: Reading, batch: np.ndarray, places: np.ndarray, weights: Losses
) -> tuple[Tensor, Tensor]:
    """What the texts at some places of a batch add to its loss, and the student's logits of them [P, C].

    Each term is a mean over something else of the batch: its texts, those with a label, the tokens of those that both sides cut alike.
    """
    lesson, signals, piece = reading.lesson, reading.lesson.signals, batch[places]
    matched = _matched_layers(family, student.model, signals) if weights.wants_hidden else []
    inputs = family.collate(student.tokenizer, [reading.encoded[index] for index in piece])
    outputs = family.forward(student.model, inputs, [layer for layer, _ in matched], weights.relation > 0)
    rows, labels = lesson.rows[piece], torch.from_numpy(lesson.labels[piece])
    labelled = _share(lesson.labels[piece] != terms.NO_LABEL, lesson.labels[batch] != terms.NO_LABEL)
    shares = (len(piece) / len(batch), labelled)
    total = _logit_terms(outputs.logits.float(), signals.logits_of(rows), labels, weights, shares)
    alike = np.flatnonzero(reading.alike[piece])
    if len(alike) and (matched or weights.relation > 0):
        share = _share(_tokens(reading, piece), _tokens(reading, batch))
        per_token = _token_terms(outputs, matched, signals, rows[alike], torch.from_numpy(alike), weights)
        total = total + share * per_token
    return total, outputs.logits


def _share(some: np.ndarray, whole: np.ndarray) -> float:
    """What some counts are of a batch's; of nothing, nothing."""
    return float(some.sum() / whole.sum()) if whole.any() else 0.0


def _tokens(reading: Reading, texts: np.ndarray) -> np.ndarray:
    """How many tokens of each text the losses a token read."""
    return np.array([len(reading.encoded[text]) if reading.alike[text] else 0 for text in texts])


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


def _logit_terms(
    student: Tensor, teacher: Tensor, labels: Tensor, weights: Losses, shares: tuple[float, float]
) -> Tensor:
    """The losses a text; `shares` are the piece's of its batch's texts, and of those with a label."""
    of_texts, of_labelled = shares
    total = student.sum() * 0
    if weights.kl > 0:
        total = total + of_texts * weights.kl * terms.kl(student, teacher, weights.temperature)
    if weights.reverse_kl > 0:
        total = total + of_texts * weights.reverse_kl * terms.reverse_kl(student, teacher, weights.temperature)
    if weights.cross_entropy > 0:
        total = total + of_labelled * weights.cross_entropy * terms.cross_entropy(student, labels)
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
