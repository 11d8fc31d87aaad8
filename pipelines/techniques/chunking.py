"""A loss over [N, V] logits of which only a few rows ever stand in memory.

L = sum over chunks c of loss_c(head(features_c)). Each chunk's gradient is taken as soon as its loss is known, and its logits are
dropped; the backward pass only scales what was stored. So the head runs once, where checkpointing would run it twice. What is
held from forward to backward is [N, H] and the head's weights' gradient, never [N, V] (the way of Liger kernels: Hsu et al. 2024,
"fused linear cross-entropy", here for any head and any loss).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Head = Callable[[Tensor], Tensor]
#: What picks some rows out of a tensor of N rows: a slice, or row numbers [n].
Where: TypeAlias = slice | Tensor
#: Logits [n, V] and which rows they are -> the sum of these rows' losses, a scalar.
RowsLoss = Callable[[Tensor, Where], Tensor]


def chunked(features: Tensor, head: Head, rows_loss: RowsLoss, chunk_rows: int, mask: Tensor | None = None) -> Tensor:
    """The sum over all rows of `rows_loss(head(features))`, computed for `chunk_rows` rows at a time; a scalar, float32 or wider.

    features [N, H]; head maps [n, H] to [n, V]; rows_loss gets these logits in float32 or wider, under autocast too, and what picks their rows out of
    any tensor of N rows: a slice, or row numbers [n] where there is a mask [N] of bools. Rows that it rules out (no target) reach neither head nor
    loss, so that not even a NaN in them counts. Gradients flow to the features and to every parameter that head and rows_loss read. A
    weight that is itself computed must be computed inside `head`: torch refuses a second pass through a graph outside. Once differentiable.
    """
    parts = _parts(features, chunk_rows, mask)
    if torch.is_grad_enabled():
        return _with_gradients(features, head, rows_loss, parts)
    total = _zero(features)
    for where in parts:
        total += rows_loss(_widened(head(features[where])), where)
    return total


def _with_gradients(features: Tensor, head: Head, rows_loss: RowsLoss, parts: Iterator[Where]) -> Tensor:
    total, inputs = _zero(features), features.detach()
    slope = torch.zeros_like(inputs)
    weights: dict[Tensor, Tensor] = {}
    for where in parts:
        rows = inputs[where].requires_grad_(features.requires_grad)
        loss = rows_loss(_widened(head(rows)), where)
        total += loss.detach()
        for leaf, gradient in _gradients(loss):
            if leaf is rows:
                slope[where] = gradient
            else:
                wide = torch.promote_types(leaf.dtype, torch.float32)  # many small terms: bfloat16 would lose them
                weights.setdefault(leaf, torch.zeros_like(leaf, dtype=wide)).add_(gradient)
    slopes = [slope, *(gradient.to(leaf.dtype) for leaf, gradient in weights.items())]
    return _Known.apply(total, len(slopes), *slopes, features, *weights)


def _gradients(loss: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every leaf that a loss depends on, with the loss' gradient there."""
    leaves = _leaves(loss)
    if leaves:
        with torch.autocast(loss.device.type, enabled=False):  # the backward pass follows the types of the forward one
            yield from zip(leaves, torch.autograd.grad(loss, leaves), strict=True)


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors at which a loss' graph ends: parameters, and the rows that were cut off from the model below."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting.extend(following for following, _ in node.next_functions)
    return found


class _Known(torch.autograd.Function):  # type: ignore[misc]
    """A scalar whose gradients are known already; arguments: the scalar, their number, the gradients, what they belong to."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors[:count])
        return total.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slopes = [slope * gradient for slope in ctx.saved_tensors]
        return (None, None, *[None] * ctx.count, *slopes)


def _parts(features: Tensor, chunk_rows: int, mask: Tensor | None) -> Iterator[Where]:
    if mask is None:
        return (slice(start, min(start + chunk_rows, len(features))) for start in range(0, len(features), chunk_rows))
    rows = mask.nonzero().squeeze(-1)
    return (rows[start : start + chunk_rows] for start in range(0, len(rows), chunk_rows))


def _widened(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _zero(features: Tensor) -> Tensor:
    return features.new_zeros((), dtype=torch.promote_types(features.dtype, torch.float32))
