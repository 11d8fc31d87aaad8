"""Distillation losses. Each takes the student's side and the teacher's stored side and answers a scalar.

Shapes: logits [N, C]; hidden states and relation vectors [B, T, H]; mask [B, T], true on real tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.techniques import divergences

#: Label of a text that has none.
NO_LABEL = -1


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`divergences.kl` of two sides' logits."""
    return divergences.kl(student, divergences.Dense(teacher), temperature)


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`divergences.reverse_kl` of two sides' logits."""
    return divergences.reverse_kl(student, divergences.Dense(teacher), temperature)


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the rows that have a label; zero where none has."""
    if not bool((labels != NO_LABEL).any()):
        return student.sum() * 0
    return F.cross_entropy(student, labels, ignore_index=NO_LABEL)


def cross_entropy_by_row(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row, [N], zero where it has no label; what a chunk sums."""
    return F.cross_entropy(student, labels, ignore_index=NO_LABEL, reduction="none")


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the real tokens' hidden states (Jiao et al. 2020)."""
    return F.mse_loss(student[mask], teacher[mask])


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean of 1 - cosine over the real tokens' hidden states (Sanh et al. 2019)."""
    return (1 - F.cosine_similarity(student[mask], teacher[mask], dim=-1)).mean()


def relation(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, heads: int) -> Tensor:
    """MiniLM self-attention relations: KL between softmax(A A^T / sqrt(d)) of teacher and student for A in queries, keys, values.

    Widths of the two sides may differ; both are cut into `heads` relation heads (Wang et al. 2021, eq. 5-6). Mean over the
    three relations, the heads and the real tokens.
    """
    terms = [_relation_kl(ours, theirs, mask, heads) for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(terms).mean()


def _relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    log_q, log_p = _relations(student, mask, heads), _relations(teacher, mask, heads)
    terms = (log_p.exp() * (log_p - log_q)).masked_fill(~mask[:, None, None, :], 0).sum(-1)  # [B, heads, T]
    return terms.transpose(1, 2)[mask].mean()


def _relations(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Log relation matrices [B, heads, T, T]; padded columns get no mass."""
    batch, length, width = states.shape
    split = states.reshape(batch, length, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / (width // heads) ** 0.5
    floor = torch.finfo(scores.dtype).min
    return F.log_softmax(scores.masked_fill(~mask[:, None, None, :], floor), -1)
