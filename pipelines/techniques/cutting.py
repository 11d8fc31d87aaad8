"""The cut itself: a smaller model of the same class from the layers and units to keep, once it is known where they are."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.families.widths import depths_of, widths_of, with_layers, with_widths
from pipelines.techniques.axes import EVERYWHERE, GROUPS, HEADS, Parts, groups_of, layer_of, layers_with, positions

#: torch's grouped matrix product, by which experts run, wants rows of a multiple of 16 bytes: 8 numbers of 16 bits.
_EXPERT_MATRICES, _EXPERT_STEP = ("intermediate_size", "hidden_size"), 8
#: Layer ("model.layers.0", or EVERYWHERE) -> its units, by number.
Units = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Kept:
    """What stays: for each depth the layers, for each width the units of every layer; what is not named stays whole.

    `units` speak of the layers as they are before the cut. Heads are numbered over the whole layer, group after group.
    """

    layers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    units: Mapping[str, Units] = field(default_factory=dict)


def cut(model: Any, keep: Kept, parts: Mapping[str, Parts], stacks: Mapping[str, str]) -> Any:
    """A new model with the kept layers and units alone. Raises ModelError for a choice that is not legal, or a tensor left over."""
    config = changed_config(model, keep, parts, stacks)
    with torch.random.fork_rng(devices=[]):
        smaller = type(model)._from_config(copy.deepcopy(config), dtype=model.dtype)
    state = narrowed(model, keep.units, parts, stacks)
    smaller.load_state_dict(_renumbered(state, smaller.state_dict(), keep, stacks))
    smaller.tie_weights()
    if hasattr(model, "generation_config"):  # taggers write nothing
        smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.to(model.device).train(model.training)


def changed_config(model: Any, keep: Kept, parts: Mapping[str, Parts], stacks: Mapping[str, str]) -> Any:
    """The model's config after the cut."""
    config, widths = model.config, widths_of(model.config)
    changes: dict[str, int] = {}
    for width, units in keep.units.items():
        count = _count(model, width, units, layers_with(parts[width], stacks))
        changes[width] = count
        if width == HEADS and GROUPS in widths:
            changes[GROUPS] = len(groups_of(next(iter(units.values())), widths))
        if "num_experts" in widths and width in _EXPERT_MATRICES and count % _EXPERT_STEP:
            raise ModelError(f"{width} {count} beside experts: it must be a multiple of {_EXPERT_STEP}")
        if width == "num_experts" and count < (least := widths.get("num_experts_per_tok", 1)):
            raise ModelError(f"{count} experts are too few: each token goes to {least}; keep at least {least}")
    config = with_widths(config, changes)
    for depth, layers in keep.layers.items():
        there = depths_of(config)
        if depth not in there:
            raise ModelError(f"{type(model).__name__} has no {depth}; it has {', '.join(there)}")
        _check_numbers(depth, layers, there[depth])
        config = with_layers(config, depth, layers)
    return config


def _count(model: Any, width: str, units: Units, layers: Sequence[str]) -> int:
    """How many units stay in every layer."""
    if set(units) != set(layers):
        named = ", ".join(layer or "one list for all layers" for layer in layers)
        raise ModelError(f"{width}: units must be named for {named}; found {sorted(units)}")
    widths = widths_of(model.config)
    for layer, kept in units.items():
        _check_numbers(f"{width} of {layer or 'all layers'}", kept, widths[width])
        if width == HEADS:
            _check_groups(layer, kept, widths)
    counts = {len(kept) for kept in units.values()} | (
        {-len(groups_of(kept, widths)) for kept in units.values()} if width == HEADS else set()
    )
    if len(counts) != (2 if width == HEADS else 1):
        raise ModelError(
            f"{width}: every layer must keep as many units as the others; found {sorted(map(abs, counts))}"
        )
    return max(counts)


def _check_numbers(what: str, kept: Sequence[int], there: int) -> None:
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= there:
        raise ModelError(f"{what}: keep some of 0 to {there - 1}, each once and in order; found {list(kept)[:20]}")


def _check_groups(layer: str, heads: Sequence[int], widths: Mapping[str, int]) -> None:
    each = widths[HEADS] // widths.get(GROUPS, widths[HEADS])
    sizes = {group: sum(head // each == group for head in heads) for group in groups_of(heads, widths)}
    if len(set(sizes.values())) > 1:
        raise ModelError(f"{HEADS} of {layer or 'all layers'}: KV groups must keep equally many heads; found {sizes}")


def narrowed(
    model: Any, units: Mapping[str, Units], parts: Mapping[str, Parts], stacks: Mapping[str, str]
) -> dict[str, Tensor]:
    """The model's tensors with only the units given, in the given order."""
    state, widths = dict(model.state_dict()), widths_of(model.config)
    for width, by_layer in units.items():
        for axis in parts[width].axes:
            kept = _units_for(by_layer, layer_of(axis.tensor, stacks))
            tensor = state[axis.tensor]
            chosen = torch.tensor(positions(axis, kept, widths), device=tensor.device)
            state[axis.tensor] = tensor.index_select(axis.axis, chosen)
    return state


def _units_for(units: Units, layer: str) -> Sequence[int]:
    return units[EVERYWHERE] if EVERYWHERE in units else units[layer]


def silenced(model: Any, units: Mapping[str, Units], parts: Mapping[str, Parts], stacks: Mapping[str, str]) -> Any:
    """A copy of the same shape in which every weight of the units that are not kept is zero."""
    silent, widths = copy.deepcopy(model), widths_of(model.config)
    state = silent.state_dict()
    with torch.no_grad():
        for width, by_layer in units.items():
            for axis in parts[width].axes:
                kept = positions(axis, _units_for(by_layer, layer_of(axis.tensor, stacks)), widths)
                gone = sorted(set(range(state[axis.tensor].shape[axis.axis])) - set(kept))
                state[axis.tensor].index_fill_(axis.axis, torch.tensor(gone, dtype=torch.long), 0)
    return silent


def _renumbered(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], keep: Kept, stacks: Mapping[str, str]
) -> dict[str, Tensor]:
    """Old tensors under the names of the smaller model; ModelError where one is missing, left over, or of another shape."""
    sources = {name: _source(name, state, keep, stacks) for name in wanted}
    for name, source in sources.items():
        if source not in state or state[source].shape != wanted[name].shape:
            there = tuple(state[source].shape) if source in state else "missing"
            raise ModelError(f"{source} is {there}, but {name} of the smaller model is {tuple(wanted[name].shape)}")
    used = set(sources.values())
    for name in state:
        if name not in used and not _dropped(name, keep, stacks):
            raise ModelError(f"{name} has no place in the smaller model; layers of unlike kinds cannot be cut")
    return {name: state[source] for name, source in sources.items()}


def _source(name: str, state: Mapping[str, Tensor], keep: Kept, stacks: Mapping[str, str]) -> str:
    """The old name of a tensor. What only the first layer of a stack has (T5's position bias) moves to the new first layer."""
    for depth, layers in keep.layers.items():
        if found := re.match(re.escape(stacks[depth]) + r"(\d+)(\..*)", name):
            number, rest = int(found.group(1)), found.group(2)
            old = f"{stacks[depth]}{layers[number]}{rest}"
            return old if old in state or number else f"{stacks[depth]}0{rest}"
    return name


def _dropped(name: str, keep: Kept, stacks: Mapping[str, str]) -> bool:
    for depth, layers in keep.layers.items():
        if found := re.match(re.escape(stacks[depth]) + r"(\d+)\.", name):
            return int(found.group(1)) not in layers
    return False


#: Tensor of the smaller model -> the model's own tensor, and where along each axis its positions stand there.
Sources = Mapping[str, tuple[str, Mapping[int, Sequence[int]]]]


def sources_of(model: Any, smaller: Any, keep: Kept, parts: Mapping[str, Parts], stacks: Mapping[str, str]) -> Sources:
    """From where `cut` took each tensor of the smaller model."""
    widths, state = widths_of(model.config), model.state_dict()
    chosen: dict[str, dict[int, Sequence[int]]] = {}
    for width, by_layer in keep.units.items():
        for axis in parts[width].axes:
            kept = _units_for(by_layer, layer_of(axis.tensor, stacks))
            chosen.setdefault(axis.tensor, {})[axis.axis] = positions(axis, kept, widths)
    found = {name: _source(name, state, keep, stacks) for name in smaller.state_dict()}
    return {name: (source, chosen.get(source, {})) for name, source in found.items()}


def taken(state: Mapping[str, Tensor], sources: Sources) -> dict[str, Tensor]:
    """The smaller model's tensors as functions of the model's: gradients flow back. What is not cut is the model's own tensor."""
    found = {}
    for name, (source, axes) in sources.items():
        tensor = state[source]
        for axis, places in axes.items():
            tensor = _along(tensor, axis, places)
        found[name] = tensor
    return found


def _along(tensor: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """A view where the first elements are taken, a copy of those that stand apart."""
    if list(places) == list(range(len(places))):
        return tensor.narrow(axis, 0, len(places))
    return tensor.index_select(axis, torch.tensor(places, device=tensor.device))
