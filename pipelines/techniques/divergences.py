"""Divergences between a student's logits and what is stored of a teacher's distributions, row by row.

Shapes: the student's logits are [n, V]; the teacher's rows are one of `Dense`, `TopK`, `Sampled`. p is the teacher's distribution, q the
student's, both softened by the temperature T; every divergence is scaled by T^2, so that its gradient keeps its size (Hinton et al. 2015).
All is computed in float32 or wider, whatever comes in. Where p is zero its term is zero, so log-probabilities of -inf are welcome;
KL(q || p) is then infinite, as it should be, unless q is zero there too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipelines.errors import ModelError, RecipeError
from pipelines.techniques.chunking import Where

Loss = Literal["kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"]
Kind = Literal["dense", "topk", "sampled"]
#: What becomes of the mass outside the K classes of a `TopK`.
Rest = Literal["tail", "renormalise"]

#: Loss -> the kinds of rows that can serve it; `uld` is `across_tokenizers.uld`.
SERVED: Mapping[Loss | Literal["uld"], tuple[Kind, ...]] = {
    "kl": ("dense", "topk", "sampled"),
    "reverse_kl": ("dense", "topk"),
    "jsd": ("dense", "topk"),
    "skew_kl": ("dense", "topk"),
    "skew_reverse_kl": ("dense", "topk"),
    "uld": ("dense", "topk"),
}


def unsupported(loss: Loss | Literal["uld"], kind: Kind, temperature: float) -> str | None:
    """Why a loss cannot be computed from a kind of teacher's rows, or None where it can. To be asked when the recipe is read."""
    if kind not in SERVED[loss]:
        return (
            f"{loss} needs the teacher's probabilities, and {kind} rows hold draws from them alone; "
            f"use kl, or store {' or '.join(SERVED[loss])} rows"
        )
    if kind == "sampled" and temperature != 1:
        return f"{kind} rows are draws at temperature 1 and cannot be softened to {temperature:g}; set the temperature to 1"
    return None


@dataclass(frozen=True, eq=False)
class Dense:
    """Whole distributions: log_probs [n, V]. Logits serve as well: rows are normalised here."""

    log_probs: Tensor
    kind: ClassVar[Kind] = "dense"

    def part(self, where: Where) -> Dense:
        """Some of the rows."""
        return Dense(self.log_probs[where])

    def against(self, student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """log p and log q [n, V]. Raises ModelError where the two sides have different classes."""
        if student.shape != self.log_probs.shape:
            raise ModelError(
                f"the student's logits are {list(student.shape)}, the teacher's {list(self.log_probs.shape)}; one row a prediction on "
                "both sides, and both cut to the tokenizer's size where a model pads its embedding"
            )
        return _soften(self.log_probs, temperature), _soften(student, temperature)


@dataclass(frozen=True, eq=False)
class TopK:
    """The K most probable classes: ids [n, K], no id twice in a row, and log_probs [n, K] of the whole distribution.

    rest="tail": what is left of the mass is one class more, on the student's side the sum over all other classes, and the divergence
    is a proper one on K + 1 classes: zero only where student and teacher agree on the K and on the rest, and never above the dense
    one (data processing inequality; at T = 1). The temperature acts on these K + 1 classes, since a softened tail cannot be known from its mass.
    rest="renormalise": both sides are conditioned on the K; it says nothing about mass outside them (a biased estimate of the dense one).
    A tail below the rounding of the sum counts as that rounding, lest KL(q || p) be infinite for it.
    """

    ids: Tensor
    log_probs: Tensor
    rest: Rest
    kind: ClassVar[Kind] = "topk"

    def part(self, where: Where) -> TopK:
        """Some of the rows."""
        return TopK(self.ids[where], self.log_probs[where], self.rest)

    def against(self, student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """log p and log q over the K classes and, where it has one, the tail: [n, K] or [n, K + 1]."""
        _same_rows(student, self.ids)
        student, ids = _wide(student), self.ids.long()
        theirs = _wide(self.log_probs)
        if self.rest == "tail" and ids.shape[-1] < student.shape[-1]:
            ours, theirs = _Grouped.apply(student, ids), torch.cat([theirs, _log_rest(theirs)], -1)
        else:
            ours = student.gather(-1, ids)
        return _soften(theirs, temperature), _soften(ours, temperature)


class _Grouped(torch.autograd.Function):  # type: ignore[misc]
    """Scores [n, V] and ids [n, K] to [n, K + 1]: the scores of the ids, and the logsumexp of all others. Once differentiable.

    What gather, scatter and logsumexp give, with one walk over [n, V] in the backward pass where theirs takes six.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, ids: Tensor) -> Tensor:
        others = scores.scatter(-1, ids, -math.inf)
        total = others.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(others, total, ids)
        return torch.cat([scores.gather(-1, ids), total], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        others, total, ids = ctx.saved_tensors
        shares = (others - total.masked_fill(total == -math.inf, 0)).exp_()
        return shares.mul_(gradient[:, -1:]).scatter_(-1, ids, gradient[:, :-1]), None


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws from the teacher's distribution at T = 1: ids [n, K] and how often each was drawn, counts [n, K]; 0 fills a row up.

    With counts the cross-entropy is an unbiased estimate, value and gradient, of the dense one. Importance weights in their place (draws from
    another distribution; Anshumann et al. 2025) are normalised to one a row, which makes it consistent instead.
    """

    ids: Tensor
    counts: Tensor
    kind: ClassVar[Kind] = "sampled"

    def part(self, where: Where) -> Sampled:
        """Some of the rows."""
        return Sampled(self.ids[where], self.counts[where])

    def cross_entropy(self, student: Tensor) -> Tensor:
        """-sum_k w_k log q(id_k) with w = counts / sum of counts: [n]. It is KL(p || q) + H(p) in expectation."""
        _same_rows(student, self.ids)
        student, counts = _wide(student), _wide(self.counts)
        surprise = student.logsumexp(-1, keepdim=True) - student.gather(-1, self.ids.long())
        drawn = surprise.masked_fill(counts == 0, 0)
        return (counts * drawn).sum(-1) / counts.sum(-1)


Rows = Dense | TopK | Sampled


def kl(student: Tensor, teacher: Rows, temperature: float) -> Tensor:
    """KL(p || q), mean over rows (Hinton et al. 2015); for `Sampled` rows up to the teacher's entropy: their cross-entropy.

    Raises ModelError where rows and temperature do not fit (`unsupported`), as all divergences here.
    """
    return by_row("kl", student, teacher, temperature).mean()


def reverse_kl(student: Tensor, teacher: Rows, temperature: float) -> Tensor:
    """KL(q || p), mean over rows (Gu et al. 2024)."""
    return by_row("reverse_kl", student, teacher, temperature).mean()


def jsd(student: Tensor, teacher: Rows, temperature: float, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q, mean over rows (Agarwal et al. 2024, generalized JSD)."""
    return by_row("jsd", student, teacher, temperature, beta).mean()


def skew_kl(student: Tensor, teacher: Rows, temperature: float, alpha: float) -> Tensor:
    """KL(p || alpha p + (1 - alpha) q), mean over rows (Ko et al. 2024)."""
    return by_row("skew_kl", student, teacher, temperature, alpha).mean()


def skew_reverse_kl(student: Tensor, teacher: Rows, temperature: float, alpha: float) -> Tensor:
    """KL(q || (1 - alpha) p + alpha q), mean over rows (Ko et al. 2024)."""
    return by_row("skew_reverse_kl", student, teacher, temperature, alpha).mean()


def by_row(loss: Loss, student: Tensor, teacher: Rows, temperature: float, mix: float | None = None) -> Tensor:
    """One divergence of each row [n]; what the functions above average, and what a chunk sums. `mix` is their beta or alpha.

    Raises ModelError for rows that cannot serve the loss, RecipeError for a mix that is missing or outside of 0 < mix < 1.
    """
    reason = unsupported(loss, teacher.kind, temperature)
    if reason is not None:
        raise ModelError(reason)
    if isinstance(teacher, Sampled):
        return teacher.cross_entropy(student)
    log_p, log_q = teacher.against(student, temperature)
    return _formula(loss, log_p, log_q, mix) * temperature**2


def _formula(loss: Loss, log_p: Tensor, log_q: Tensor, mix: float | None) -> Tensor:
    if loss == "kl":
        return _relative_entropy(log_p, log_q)
    if loss == "reverse_kl":
        return _relative_entropy(log_q, log_p)
    if mix is None or not 0 < mix < 1:
        raise RecipeError(
            f"{loss}: its mixing weight is {mix}, and must lie between 0 and 1; at the ends use kl or reverse_kl"
        )
    if loss == "skew_kl":
        return _relative_entropy(log_p, _log_mixture(log_p, log_q, mix))
    if loss == "skew_reverse_kl":
        return _relative_entropy(log_q, _log_mixture(log_q, log_p, mix))
    middle = _log_mixture(log_p, log_q, mix)
    return mix * _relative_entropy(log_p, middle) + (1 - mix) * _relative_entropy(log_q, middle)


def _relative_entropy(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) of each row; a class that a never takes adds nothing, and no NaN to the gradient."""
    ratio = (log_a - log_b).masked_fill(log_a == -math.inf, 0)
    return (log_a.exp() * ratio).sum(-1)


def _log_mixture(log_a: Tensor, log_b: Tensor, weight: float) -> Tensor:
    """log(weight a + (1 - weight) b), -inf where both are zero."""
    nowhere = (log_a == -math.inf) & (log_b == -math.inf)
    left, right = log_a.masked_fill(nowhere, 0), log_b.masked_fill(nowhere, 0)
    return torch.logaddexp(left + math.log(weight), right + math.log1p(-weight)).masked_fill(nowhere, -math.inf)


def _same_rows(student: Tensor, ids: Tensor) -> None:
    if len(student) != len(ids):  # gather would take the first of them
        raise ModelError(
            f"the student's logits are {len(student)} rows, the teacher's {len(ids)}; one row a prediction on both sides"
        )


def _soften(scores: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(_wide(scores) / temperature, -1)


def _log_rest(log_probs: Tensor) -> Tensor:
    """log(1 - sum of the known probabilities), [n, 1], at least the sum's rounding."""
    rest = 1 - log_probs.exp().sum(-1, keepdim=True)
    return rest.clamp(min=torch.finfo(rest.dtype).eps).log()


def _wide(values: Tensor) -> Tensor:
    """As float32, or as float64 where it is that already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
