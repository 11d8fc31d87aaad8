"""Distillation between models that cut text into different tokens: whether they do, where both predict the same, and a loss without names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.techniques.divergences import Dense, Rows, Sampled, TopK, unsupported
from pipelines.token_signals import SampledRows, TokenSignals, TopKRows

Ids = NDArray[np.int64]


def disagreement(
    student: Any, teacher: Any, ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]
) -> str | None:
    """How two tokenizers differ, in words; None where a number means the same token to both and both cut texts alike.

    `ours` and `theirs` are the same texts as token ids. Equal vocabularies do not suffice: other merges, another normalizer or another
    end of text give the same numbers another meaning. A model may have more embedding rows than its tokenizer has tokens; those
    stand for nothing, and are not looked at.
    """
    found = _first_other_token(student, teacher) or _first_other_cut(student, teacher, ours, theirs)
    if found is None:
        return None
    return f"the tokenizers of student ({_named(student)}) and teacher ({_named(teacher)}) disagree {found}"


def _first_other_token(student: Any, teacher: Any) -> str | None:
    ours, theirs = ({index: token for token, index in one.get_vocab().items()} for one in (student, teacher))
    for index in sorted(ours.keys() | theirs.keys()):
        if ours.get(index) != theirs.get(index):
            return f"on token id {index}: {_quoted(ours.get(index))} and {_quoted(theirs.get(index))}"
    return None


def _first_other_cut(
    student: Any, teacher: Any, ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]
) -> str | None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if list(one) != list(other):
            at = next(
                (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
            )
            tokens = [
                _quoted(side.convert_ids_to_tokens(row[at]) if at < len(row) else None)
                for side, row in ((student, one), (teacher, other))
            ]
            return f"on how to cut example {number}: at token {at} stand {tokens[0]} and {tokens[1]}"
    return None if len(ours) == len(theirs) else f"on how many examples the texts are: {len(ours)} and {len(theirs)}"


def _named(tokenizer: Any) -> str:
    return f"{type(tokenizer.backend_tokenizer.model).__name__}, {len(tokenizer)} tokens"


def _quoted(token: str | None) -> str:
    return "no token" if token is None else repr(token)


def align(student: Sequence[int], teacher: Sequence[int]) -> tuple[Ids, Ids]:
    """Predictions of both sides [A], [A] that are made when the same text has been read, so that both are of what comes after it.

    Each side says for each of its predictions how many characters have been read. Of several predictions after the same
    characters (the bytes of a character, or special tokens before the text) the last counts; one after fewer than before, or after a
    negative number, counts nowhere.
    """
    ours, theirs = _last_after(student), _last_after(teacher)
    shared = sorted(ours.keys() & theirs.keys())
    return np.array([ours[read] for read in shared], np.int64), np.array([theirs[read] for read in shared], np.int64)


def _last_after(reads: Sequence[int]) -> dict[int, int]:
    """Characters read -> the last prediction after just these."""
    most, found = 0, {}
    for prediction, read in enumerate(reads):
        if read >= most:
            most = read
            found[read] = prediction
    return found


class AlignedSignals:
    """A teacher's signals as a student with other tokens reads them: some of its predictions have one of the teacher's beside them.

    `partners` has an array for each of the student's examples: for each prediction the number of the teacher's, counted
    through the whole store, or -1.
    """

    def __init__(self, signals: TokenSignals, partners: Sequence[Ids]) -> None:
        self._signals, self._partners = signals, partners
        self._starts = np.cumsum([0, *(signals.predictions(at) for at in range(len(signals)))])
        self.share = float(np.mean(np.concatenate([np.zeros(0, np.int64), *partners]) >= 0))

    def rows(self, examples: Sequence[int] | Ids) -> tuple[TopKRows | SampledRows, Ids]:
        """The teacher's rows beside the student's predictions in some examples, and for each of these its row's number or -1."""
        partners = np.concatenate([self._partners[at] for at in examples])
        heard = partners >= 0
        wanted = partners[heard]
        # The store answers whole examples: those that hold a wanted prediction, end to end.
        owners, owner = np.unique(np.searchsorted(self._starts, wanted, side="right") - 1, return_inverse=True)
        begins = np.cumsum([0, *(self._starts[owners + 1] - self._starts[owners])])
        stored = self._signals.rows(owners)
        rows = wanted - self._starts[owners[owner]] + begins[owner]
        numbers = np.full(len(partners), -1, np.int64)
        numbers[heard] = np.arange(len(wanted))
        return stored.part(rows), numbers


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
