"""Structured pruning: how much each unit matters, which to keep, and the cut itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.config import StructuredPruning
from pipelines.errors import ModelError
from pipelines.families.base import Family, LayerUnits
from pipelines.techniques.narrowing import narrow_in, narrow_out

#: Answers one loss a call, over a fixed list of calibration batches; call it until it is exhausted.
CalibrationLosses = Callable[[Any], Iterator[Tensor]]


@dataclass(frozen=True)
class Shape:
    """What structured pruning changes: layers, FFN width and heads, the two last the same in every layer."""

    layers: int
    width: int
    heads: int


def shape_of(family: Family, model: Any, wanted: StructuredPruning) -> Shape:
    """The present shape of a model; width and heads are 0 where the recipe leaves them alone (some architectures have no such unit)."""
    narrow = wanted.intermediate_size is not None or wanted.num_attention_heads is not None
    if not narrow:
        return Shape(family.depth(model), 0, 0)
    units = family.units(model)
    return Shape(len(units), units[0].ffn_down.in_features, units[0].queries.out_features // units[0].head_size)


def targets(start: Shape, wanted: StructuredPruning) -> list[Shape]:
    """The shapes on the way: geometric steps from the present one to the recipe's. Raises ModelError where it would grow."""
    asked = {
        "num_hidden_layers": (start.layers, wanted.num_hidden_layers),
        "intermediate_size": (start.width, wanted.intermediate_size),
        "num_attention_heads": (start.heads, wanted.num_attention_heads),
    }
    for name, (now, then) in asked.items():
        if then is not None and then > now:
            raise ModelError(
                f"prune.{name} is {then}, but the student has only {now}; name a smaller number, or null to keep all"
            )
    ends = [(now, then or now) for now, then in asked.values()]
    return [
        Shape(*(_between(now, then, step / wanted.steps) for now, then in ends)) for step in range(1, wanted.steps + 1)
    ]


def _between(start: int, end: int, share: float) -> int:
    return end if share >= 1 or start == end else max(end, round(start * (end / start) ** share))


def prune_to(family: Family, model: Any, target: Shape, losses: CalibrationLosses, importance: str) -> None:
    """Cut a model in place: least harmful layers first, then the least important FFN columns and heads of each layer."""
    while family.depth(model) > target.layers:
        family.drop_layers(model, _without_least_harmful(family, model, losses))
    if target.width == 0:
        return
    columns, heads = unit_importance(family, model, losses, importance)
    keep = [
        (_top(columns[index], target.width), _top(heads[index], target.heads)) for index in range(family.depth(model))
    ]
    keep_units(family, model, keep)


def keep_units(family: Family, model: Any, keep: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    """Keep these FFN columns and heads, a pair of lists a layer, in the order given; in place."""
    pruned: dict[int, list[int]] = {}
    for index, (units, (columns, heads)) in enumerate(zip(family.units(model), keep, strict=True)):
        there = units.queries.out_features // units.head_size
        _narrow_ffn(model, units, columns)
        _narrow_heads(model, units, heads)
        pruned[index] = [head for head in range(there) if head not in set(heads)]
    family.narrowed(model, pruned)


def unit_importance(
    family: Family, model: Any, losses: CalibrationLosses, importance: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Importance of every FFN column [width] and head [heads], a tensor a layer.

    `taylor`: sum over tokens of |activation x gradient| at the input of the layer's second matrix, the first-order change of the
    loss when the unit goes (Molchanov et al. 2019; Michel et al. 2019 for heads). `activation`: the same sum of |activation| times the
    norm of the weights that read it (Sun et al. 2023).
    """
    units = family.units(model)
    columns = [torch.zeros(unit.ffn_down.in_features) for unit in units]
    heads = [torch.zeros(unit.attention_out.in_features // unit.head_size) for unit in units]
    with _recorded_inputs([unit.ffn_down for unit in units] + [unit.attention_out for unit in units]) as inputs:
        for loss in losses(model):
            if importance == "taylor":
                model.zero_grad(set_to_none=True)
                loss.backward()
            for index, unit in enumerate(units):
                columns[index] += _contribution(inputs[index], unit.ffn_down, importance).sum(0)
                by_head = _contribution(inputs[len(units) + index], unit.attention_out, importance, unit.head_size)
                heads[index] += by_head.sum(0)
            inputs.clear()
    model.zero_grad(set_to_none=True)
    return columns, heads


def _contribution(states: Tensor, reader: nn.Linear, importance: str, group: int = 1) -> Tensor:
    """|contribution| of each group of columns, a row a token: [tokens, columns / group]."""
    flat = states.detach().float().reshape(-1, states.shape[-1])
    if importance == "activation":
        return (flat.abs() * reader.weight.detach().norm(dim=0)).reshape(len(flat), -1, group).sum(-1)
    if states.grad is None:
        raise ModelError("no gradient reached the layer whose units are measured; the loss does not depend on it")
    return (flat * states.grad.float().reshape(flat.shape)).reshape(len(flat), -1, group).sum(-1).abs()


@contextmanager
def _recorded_inputs(readers: Sequence[nn.Linear]) -> Iterator[dict[int, Tensor]]:
    """The input of each reader in the latest forward pass, gradients kept."""
    inputs: dict[int, Tensor] = {}

    def remember(position: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if arguments[0].requires_grad:
                arguments[0].retain_grad()
            inputs[position] = arguments[0]

        return hook

    handles = [reader.register_forward_pre_hook(remember(position)) for position, reader in enumerate(readers)]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def _without_least_harmful(family: Family, model: Any, losses: CalibrationLosses) -> list[int]:
    """All layers but the one whose absence raises the calibration loss least (measured, not estimated)."""
    depth = family.depth(model)
    options = [[layer for layer in range(depth) if layer != gone] for gone in range(depth)]

    def harm(keep: list[int]) -> float:
        trial = copy.deepcopy(model)
        family.drop_layers(trial, keep)
        with torch.no_grad():
            return sum(float(loss) for loss in losses(trial))

    return min(options, key=harm)


def _top(importance: Tensor, count: int) -> list[int]:
    """Positions of the `count` largest, in their old order; ties go to the first."""
    order = torch.argsort(importance, descending=True, stable=True)
    return sorted(order[:count].tolist())


def _narrow_ffn(model: Any, units: LayerUnits, kept: Sequence[int]) -> None:
    for up in units.ffn_up:
        swap(model, up, narrow_out(up, kept))
    swap(model, units.ffn_down, narrow_in(units.ffn_down, kept))


def _narrow_heads(model: Any, units: LayerUnits, kept: Sequence[int]) -> None:
    columns = [head * units.head_size + offset for head in kept for offset in range(units.head_size)]
    for projection in (units.queries, units.keys, units.values):
        swap(model, projection, narrow_out(projection, columns))
    swap(model, units.attention_out, narrow_in(units.attention_out, columns))


def swap(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module where another one stands."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
                return
    raise ModelError(f"internal: {type(old).__name__} is not a part of the model")
