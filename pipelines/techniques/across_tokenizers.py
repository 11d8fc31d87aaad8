"""Distillation between models that cut text into different tokens, and the check that two of them cut it alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.techniques.divergences import Dense, Rows, Sampled, TopK, unsupported

#: Where a token begins and ends in its text, in characters; (0, 0) for one that stands for no text.
Offsets = Sequence[tuple[int, int]]


class Vocabulary(Protocol):
    """What is asked of a tokenizer: its tokens and their ids."""

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens among them."""


def vocabularies_agree(student: Vocabulary, teacher: Vocabulary) -> None:
    """Raise ModelError, naming the first id whose token differs, where logits must not be compared id by id.

    The tokenizers decide. A model may have more embedding rows than its tokenizer has tokens; those stand for nothing, and are not looked at.
    """
    ours, theirs = _by_id(student), _by_id(teacher)
    for index in sorted(ours.keys() | theirs.keys()):
        if ours.get(index) != theirs.get(index):
            raise ModelError(
                f"student and teacher disagree on token id {index}: {_named(ours.get(index))} and {_named(theirs.get(index))}; "
                "give the student the teacher's tokenizer, or use a loss across tokenizers (uld, or the teacher's text)"
            )


def _by_id(vocabulary: Vocabulary) -> dict[int, str]:
    return {index: token for token, index in vocabulary.get_vocab().items()}


def _named(token: str | None) -> str:
    return "no token" if token is None else repr(token)


def align(student: Offsets, teacher: Offsets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of both sides [A], [A] at which the same text has been read, so that both predict what comes after it.

    A token's position counts once all of the text up to its end is read: of several tokens with one end (the bytes of a character, or
    special tokens before the text) the last. Special tokens after the text count nowhere.
    """
    ours, theirs = _positions(student), _positions(teacher)
    shared = sorted(ours.keys() & theirs.keys())
    return np.array([ours[end] for end in shared], np.int64), np.array([theirs[end] for end in shared], np.int64)


def _positions(offsets: Offsets) -> dict[int, int]:
    """Characters read -> the last position at which just these have been."""
    read, positions = 0, {}
    for position, (_, end) in enumerate(offsets):
        if end >= read:
            read = end
            positions[end] = position
    return positions


def uld(student: Tensor, teacher: Rows, temperature: float) -> Tensor:
    """Universal logit distillation, mean over rows: sum_i |p_(i) - q_(i)| of probabilities sorted downwards (Boizard et al. 2024).

    student [n, V of the student] and the teacher's rows at aligned positions; the narrower side is padded with zeros. This is the Wasserstein-1
    distance where any two tokens are equally far apart. `TopK` rows are compared with the student's own K largest, and
    tail with tail. Raises ModelError for rows that cannot serve it.
    """
    return uld_by_row(student, teacher, temperature).mean()


def uld_by_row(student: Tensor, teacher: Rows, temperature: float) -> Tensor:
    """What `uld` averages: [n]."""
    reason = unsupported("uld", teacher.kind, temperature)
    if isinstance(teacher, Sampled) or reason is not None:
        raise ModelError(reason)
    log_p, log_q = _in_order(student, teacher, temperature)
    return (log_p.exp() - log_q.exp()).abs().sum(-1)


def _in_order(student: Tensor, teacher: Dense | TopK, temperature: float) -> tuple[Tensor, Tensor]:
    """log p and log q, each from the largest down and padded with -inf; a tail last."""
    theirs = teacher.log_probs.sort(-1, descending=True).values
    known = theirs.shape[-1]
    if isinstance(teacher, TopK):
        ours = _padded(
            student, known + 1
        )  # one class more than the K, so that a tail of the teacher's always meets one
        return TopK(ours.topk(known).indices, theirs, teacher.rest).against(ours, temperature)
    ours = student.sort(-1, descending=True).values
    return Dense(_padded(theirs, ours.shape[-1])).against(_padded(ours, known), temperature)


def _padded(scores: Tensor, width: int) -> Tensor:
    return F.pad(scores, (0, max(0, width - scores.shape[-1])), value=-math.inf)
