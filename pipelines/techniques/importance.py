"""How much each layer and unit of a generator matters to its loss, and which of them a smaller shape keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.families.widths import depths_of, widths_of
from pipelines.techniques.axes import GROUPS, HEADS, Axis, Parts, layer_of, layers_with, stacks_of
from pipelines.techniques.cutting import Kept, cut
from pipelines.techniques.probing import probed
from pipelines.techniques.pruning import CalibrationLosses
from pipelines.techniques.slicing import CUTTABLE, DEPTHS, Shape

#: Layer ("model.layers.0", or "" for all) -> a value a unit.
Scores = Mapping[str, Tensor]
LayerMethod = Literal["loss", "cosine"]


@dataclass(frozen=True)
class Importance:
    """Depth -> a value a layer, and width -> layer -> a value a unit; larger matters more. Comparable within one list only."""

    layers: Mapping[str, Tensor]
    units: Mapping[str, Scores]


def taylor(model: Any, losses: CalibrationLosses, widths: Sequence[str], absolute: bool = False) -> dict[str, Scores]:
    """First-order change of the loss when a unit's weights shrink to nothing: |sum(w dL/dw)| over all its weights.

    Summed over the losses (Molchanov et al. 2019, eq. 8; for coupled groups LLM-Pruner, Ma et al. 2023). `absolute` takes
    sum(|w dL/dw|) instead, where effects of single weights cannot cancel. A group's keys and values count for its heads in
    equal shares. Raises ModelError where a width cannot be cut, or no gradient arrives.
    """

    def contribution(weight: nn.Parameter) -> Tensor | None:
        if weight.grad is None:
            return None
        product = weight.detach().float() * weight.grad.float()
        return product.abs() if absolute else product

    stacks = stacks_of(model)
    parts = [probed(model, width, stacks) for width in widths]
    totals: dict[str, dict[str, Tensor]] = {}
    for loss in losses(model):
        model.zero_grad(set_to_none=True)
        loss.backward()
        for part in parts:
            scores = _scores(model, part, stacks, contribution)
            if not scores:
                raise ModelError(f"no gradient reached the weights of {part.width}; the loss does not depend on them")
            _add(totals.setdefault(part.width, {}), {layer: value.abs() for layer, value in scores.items()})
    model.zero_grad(set_to_none=True)
    if parts and not totals:
        raise ModelError("importance needs at least one calibration loss; found none")
    return dict(totals)


def magnitude(model: Any, widths: Sequence[str]) -> dict[str, Scores]:
    """The Euclidean norm of all weights of a unit; needs no data."""
    stacks = stacks_of(model)
    found: dict[str, Scores] = {}
    for width in widths:
        scores = _scores(model, probed(model, width, stacks), stacks, lambda weight: weight.detach().float().square())
        found[width] = {layer: value.sqrt() for layer, value in scores.items()}
    return found


def layer_importance(model: Any, losses: CalibrationLosses, method: LayerMethod) -> dict[str, Tensor]:
    """Depth -> a value a layer.

    `loss`: the rise of the calibration loss when the layer is gone, measured. `cosine`: 1 - the cosine between what enters and what
    leaves the layer, averaged over its positions (Men et al. 2024, eq. 1), from one pass. A stack's only layer is worth infinity.
    """
    stacks = stacks_of(model)
    found = _by_cosine(model, losses, stacks) if method == "cosine" else _by_loss(model, losses, stacks)
    return {depth: torch.full((1,), torch.inf) if len(values) == 1 else values for depth, values in found.items()}


def kept(shape: Shape, start: Shape, importance: Importance) -> Kept:
    """The most important layers and units that make `shape` of a model of shape `start`; the same number in every layer.

    Of heads, the best groups stay, and in each the best heads. Raises ModelError where the shape asks for more than there is,
    for heads that do not fit their groups, or for a change whose importance was not measured.
    """
    for name in Shape.__dataclass_fields__:
        before, after = getattr(start, name), getattr(shape, name)
        if after > before or (before and after < 1):
            remedy = f"choose 1 to {before}" if before else "leave it at 0"
            raise ModelError(f"{name} cannot become {after}: there are {before}; {remedy}")
    layers = {
        depth: _best(_measured(importance.layers, depth), getattr(shape, depth))
        for depth in DEPTHS
        if getattr(shape, depth) != getattr(start, depth)
    }
    units: dict[str, dict[str, list[int]]] = {}
    for width in CUTTABLE:
        changed = getattr(shape, width) != getattr(start, width)
        if width == HEADS:
            changed = changed or shape.num_key_value_heads != start.num_key_value_heads
        if changed:
            scores = _measured(importance.units, width)
            units[width] = {layer: _units(width, values, shape, start) for layer, values in scores.items()}
    return Kept(layers, units)


def _measured(found: Mapping[str, Any], name: str) -> Any:
    if name not in found:
        raise ModelError(f"the shape changes {name}, but its importance was not measured; measured: {sorted(found)}")
    return found[name]


def _units(width: str, values: Tensor, shape: Shape, start: Shape) -> list[int]:
    return _best_heads(values, shape, start) if width == HEADS else _best(values, getattr(shape, width))


def _best(values: Tensor, count: int) -> list[int]:
    """Positions of the `count` largest, in their old order; ties go to the first."""
    order = torch.argsort(values, descending=True, stable=True)
    return sorted(order[:count].tolist())


def _best_heads(values: Tensor, shape: Shape, start: Shape) -> list[int]:
    heads, groups = shape.num_attention_heads, shape.num_key_value_heads
    if heads % groups or heads // groups > start.num_attention_heads // start.num_key_value_heads:
        raise ModelError(
            f"{heads} heads do not fit {groups} KV groups: {start.num_key_value_heads} groups of "
            f"{start.num_attention_heads // start.num_key_value_heads} heads can lose whole groups, or as many heads in each"
        )
    by_group = values.reshape(start.num_key_value_heads, -1)
    each = by_group.shape[1]
    inner = {group: _best(by_group[group], heads // groups) for group in range(len(by_group))}
    worth = torch.stack([by_group[group][inner[group]].sum() for group in inner])
    return [group * each + head for group in _best(worth, groups) for head in inner[group]]


def _scores(
    model: Any, parts: Parts, stacks: Mapping[str, str], contribution: Callable[[nn.Parameter], Tensor | None]
) -> dict[str, Tensor]:
    """Layer -> the sum of every weight's contribution, a value a unit; {} where no weight contributes."""
    weights = dict(model.named_parameters())
    widths = widths_of(model.config)
    found: dict[str, Tensor] = {}
    for axis in parts.axes:
        if axis.tensor not in weights or (value := contribution(weights[axis.tensor])) is None:
            continue
        layer = layers_with(parts, stacks)[0] if parts.shared else layer_of(axis.tensor, stacks)
        _add(found, {layer: _by_unit(value, axis, parts.width, widths).cpu()})
    return found


def _by_unit(value: Tensor, axis: Axis, width: str, widths: Mapping[str, int]) -> Tensor:
    """The sums over the elements of each unit [units]; what belongs to a KV group is shared out to its heads."""
    along = value.movedim(axis.axis, 0).flatten(1).sum(1) if value.ndim > 1 else value
    total = torch.zeros(widths[width], device=value.device)
    lengths = [segment.size * widths[segment.width] for segment in axis.segments]
    for segment, run in zip(axis.segments, along.split(lengths), strict=True):
        each = run.reshape(-1, segment.size).sum(1)
        if segment.width == GROUPS:
            heads = widths[width] // widths[GROUPS]
            each = each.repeat_interleave(heads) / heads
        total += each
    return total


def _add(totals: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for layer, value in more.items():
        totals[layer] = totals[layer] + value if layer in totals else value


def _by_loss(model: Any, losses: CalibrationLosses, stacks: Mapping[str, str]) -> dict[str, Tensor]:
    whole = _total(losses, model)
    found = {}
    for depth, count in depths_of(model.config).items():
        if count == 1:
            found[depth] = torch.zeros(1)
            continue
        rises = []
        for gone in range(count):
            rest = [layer for layer in range(count) if layer != gone]
            rises.append(_total(losses, cut(model, Kept(layers={depth: rest}), {}, stacks)) - whole)
        found[depth] = torch.tensor(rises)
    return found


def _total(losses: CalibrationLosses, model: Any) -> float:
    with torch.no_grad():
        values = [float(loss) for loss in losses(model)]
    if not values:
        raise ModelError("importance needs at least one calibration loss; found none")
    return sum(values)


def _by_cosine(model: Any, losses: CalibrationLosses, stacks: Mapping[str, str]) -> dict[str, Tensor]:
    with _watched(model, stacks) as seen:
        _total(losses, model)
    return {
        depth: torch.tensor([1 - sum(seen[depth, layer]) / len(seen[depth, layer]) for layer in range(count)])
        for depth, count in depths_of(model.config).items()
    }


@contextmanager
def _watched(model: Any, stacks: Mapping[str, str]) -> Iterator[dict[tuple[str, int], list[float]]]:
    """(depth, layer) -> the mean cosine of input and output in every forward pass meanwhile."""
    seen: dict[tuple[str, int], list[float]] = {}

    def remember(where: tuple[str, int]) -> Callable[..., None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = arguments[0] if arguments else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            similar = torch.cosine_similarity(before.detach().float(), after.detach().float(), dim=-1)
            seen.setdefault(where, []).append(float(similar.mean()))

        return hook

    handles = [
        model.get_submodule(f"{prefix}{layer}").register_forward_hook(remember((depth, layer)), with_kwargs=True)
        for depth, prefix in stacks.items()
        for layer in range(depths_of(model.config)[depth])
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
