"""A student's objective over predictions: stored signals, true classes, and texts of its own that the teacher scores.

Everything here sees examples, rows of features and a head (families/sequences.py); logits stand in memory a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import OnPolicy, TokenLosses, Training
from pipelines.families.sequences import Batch, Example, Rows, SequenceFamily
from pipelines.techniques import divergences
from pipelines.techniques.across_tokenizers import AlignedSignals, uld_by_row
from pipelines.techniques.chunking import Where, chunked
from pipelines.techniques.course import EpochRecord, Keeper, Score
from pipelines.techniques.losses import NO_LABEL
from pipelines.techniques.training import Piece, train
from pipelines.token_signals import Rows as SignalRows
from pipelines.token_signals import TokenSignals, TopKRows

#: Examples a forward pass while scoring, and predictions whose logits stand in memory then.
SCORE_BATCH, SCORE_ROWS = 16, 1024

#: The recipe's name of a divergence that compares class with class -> that of its formula.
FORMULAS: dict[str, divergences.Loss] = {
    "forward_kl": "kl",
    "reverse_kl": "reverse_kl",
    "jsd": "jsd",
    "skew_kl": "skew_kl",
    "skew_reverse_kl": "skew_reverse_kl",
}

#: Learning from the data alone.
TRUE_CLASSES = TokenLosses(
    divergence="forward_kl", weight=0.0, mixture=0.5, temperature=1.0, cross_entropy=1.0, chunk_rows=SCORE_ROWS
)

#: Which predictions are asked about -> what the teacher says, and of which among them.
TeacherRows = Callable[[Where], tuple[divergences.Rows, Where]]
EVERY = slice(None)


@dataclass(frozen=True)
class TokenLesson:
    """What a student learns from: examples, and the teacher's word on their predictions; without signals, the true classes alone."""

    examples: list[Example]
    signals: TokenSignals | AlignedSignals | None


class LossScore(Score):
    """Ordered by loss alone: of a language model's tokens most are right or wrong by chance of the text."""

    def better_than(self, other: Score | None) -> bool:
        """Whether this score should replace the other."""
        return other is None or self.loss < other.loss


def learn_tokens(
    family: SequenceFamily,
    student: Bundle,
    lesson: TokenLesson,
    validation: Sequence[Example],
    weights: TokenLosses,
    settings: Training,
    *,
    seed: int,
    phase: str,
    epochs: int,
    keeper: Keeper,
    own: tuple[OnPolicy, Bundle] | None = None,
) -> list[EpochRecord]:
    """Train a student in place; one record an epoch. `own`: learning from its own texts, with the teacher that scores them.

    Raises ModelError where the examples are not those that the teacher saw, or the loss stops being a number.
    """
    check_tokens(lesson)

    def objective(piece: Piece, random: np.random.Generator) -> Tensor:
        if own is not None and random.random() < own[0].share:
            examples = [lesson.examples[index] for index in piece.texts]
            written = family.write(student, examples, own[0], int(random.integers(2**31)))
            if written:  # how many predictions the other pieces write nobody knows here: they weigh by their texts
                return piece.share * _scored_by(family, student, own[1], written, weights)
        return share_of(piece, lesson.examples) * lesson_loss(family, student, lesson, piece.texts, weights)

    return train(
        student.model,
        [example.length for example in lesson.examples],
        objective,
        lambda: score_tokens(family, student, validation),
        settings,
        seed=seed,
        phase=phase,
        epochs=epochs,
        keeper=keeper,
    )


def share_of(piece: Piece, examples: Sequence[Example]) -> float:
    """A piece's share of the predictions in its batch: what the loss is a mean over."""
    counts = np.array([len(examples[index].classes) for index in piece.batch])
    return float(counts[piece.places].sum() / counts.sum())


def check_tokens(lesson: TokenLesson) -> None:
    """Raise ModelError where the examples are not those that the teacher saw."""
    if isinstance(lesson.signals, TokenSignals):
        for index, example in enumerate(lesson.examples):
            lesson.signals.check_tokens(index, example.seen)


def lesson_loss(
    family: SequenceFamily,
    student: Bundle,
    lesson: TokenLesson,
    batch: Sequence[int] | np.ndarray,
    weights: TokenLosses,
) -> Tensor:
    """The recipe's loss over one batch of example indices, mean over predictions."""
    inputs = family.collate(student, [lesson.examples[index] for index in batch])
    rows = family.rows(student.model, inputs)
    return mean_loss(rows, inputs.classes, teacher_rows(lesson, batch, weights), weights)


def teacher_rows(lesson: TokenLesson, batch: Sequence[int] | np.ndarray, weights: TokenLosses) -> TeacherRows | None:
    """The teacher's word on a batch of example indices; None where the lesson has none, or it has no weight."""
    if lesson.signals is None or weights.weight == 0:
        return None
    if isinstance(lesson.signals, AlignedSignals):
        stored, numbers = lesson.signals.rows(batch)
        return _said_of_some(_rows_of(stored), torch.from_numpy(numbers))
    whole = _rows_of(lesson.signals.rows(batch))
    return lambda where: (whole.part(where), EVERY)


def _rows_of(stored: SignalRows) -> divergences.Rows:
    if isinstance(stored, TopKRows):
        return divergences.TopK(torch.from_numpy(stored.ids), torch.from_numpy(stored.log_probs), "tail")
    return divergences.Sampled(torch.from_numpy(stored.ids), torch.from_numpy(stored.counts))


def _said_of_some(whole: divergences.Rows, numbers: Tensor) -> TeacherRows:
    """`numbers` [N] is of each prediction its row in `whole`, or -1."""

    def said(where: Where) -> tuple[divergences.Rows, Where]:
        asked = numbers[where]
        heard = (asked >= 0).nonzero().squeeze(-1)
        return whole.part(asked[heard]), heard

    return said


def _scored_by(
    family: SequenceFamily, student: Bundle, teacher: Bundle, written: Sequence[Example], weights: TokenLosses
) -> Tensor:
    """The divergence on texts of the student's own; what it wrote is no true class."""
    inputs = family.collate(student, written)
    rows = family.rows(student.model, inputs)
    with torch.no_grad():
        theirs = family.rows(teacher.model, inputs)

    def said(where: Where) -> tuple[divergences.Rows, Where]:
        with torch.no_grad():
            return divergences.Dense(theirs.head(theirs.features[where]).float()), EVERY

    return mean_loss(rows, torch.full_like(inputs.classes, NO_LABEL), said, weights)


def mean_loss(rows: Rows, classes: Tensor, teacher: TeacherRows | None, weights: TokenLosses) -> Tensor:
    """weight x divergence + cross_entropy x cross-entropy, mean over the predictions; without a divergence where the teacher said nothing."""

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        total = logits.new_zeros(())
        if teacher is not None and weights.weight > 0:
            said, heard = teacher(where)
            total = total + weights.weight * _by_row(logits[heard], said, weights).sum()
        if teacher is None or weights.cross_entropy > 0:
            share = weights.cross_entropy if teacher is not None else 1.0
            total = total + share * F.cross_entropy(logits, classes[where], ignore_index=NO_LABEL, reduction="sum")
        return total

    return chunked(rows.features, rows.head, rows_loss, weights.chunk_rows) / len(classes)


def _by_row(logits: Tensor, said: divergences.Rows, weights: TokenLosses) -> Tensor:
    if weights.divergence == "uld":
        return uld_by_row(logits, said, weights.temperature)
    return divergences.by_row(FORMULAS[weights.divergence], logits, said, weights.temperature, weights.mixture)


def score_tokens(family: SequenceFamily, bundle: Bundle, examples: Sequence[Example]) -> LossScore:
    """Share of predictions that are right, and mean cross-entropy in nats a prediction."""
    nats, right, count = 0.0, 0, 0
    for batch in batches_of(examples):
        logits_nats, hits = _scored(family, bundle, batch)
        nats, right, count = nats + logits_nats, right + hits, count + sum(len(one.classes) for one in batch)
    return LossScore(right / max(count, 1), nats / max(count, 1))


def batches_of(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples in batches of similar length."""
    order = sorted(examples, key=lambda example: example.length)
    return [order[start : start + SCORE_BATCH] for start in range(0, len(order), SCORE_BATCH)]


def _scored(family: SequenceFamily, bundle: Bundle, examples: Sequence[Example]) -> tuple[float, int]:
    hits = 0

    with torch.no_grad():
        inputs: Batch = family.collate(bundle, examples)
        rows = family.rows(bundle.model, inputs)

        def rows_loss(logits: Tensor, where: Where) -> Tensor:
            nonlocal hits
            hits += int((logits.argmax(-1) == inputs.classes[where]).sum())
            return F.cross_entropy(logits, inputs.classes[where], ignore_index=NO_LABEL, reduction="sum")

        return float(chunked(rows.features, rows.head, rows_loss, SCORE_ROWS)), hits
