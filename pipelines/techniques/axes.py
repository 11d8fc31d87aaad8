"""Which axes of which tensors belong to a width: found from the shapes of a class built without memory, wider and as it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.errors import ModelError
from pipelines.families.widths import depths_of, why_without, widths_of, with_layers, with_widths

HEADS, GROUPS = "num_attention_heads", "num_key_value_heads"
#: Stands for "every layer" where a layer would be named.
EVERYWHERE = ""


@dataclass(frozen=True)
class Segment:
    """A run of an axis that holds `size` elements for each unit of a width, one unit after the other."""

    width: str
    size: int


#: One way to read an axis: its segments, one after the other; a fused matrix has several.
Layout = tuple[Segment, ...]
#: (tensor, axis) -> the layouts that its length allows.
Layouts = dict[tuple[str, int], list[Layout]]


@dataclass(frozen=True)
class Axis:
    """One axis of one tensor, and how it holds the units of a width."""

    tensor: str
    axis: int
    segments: Layout


@dataclass(frozen=True)
class Parts:
    """All axes of a width. `shared` where every layer must keep the same units (residual channels; T5's heads, which share a bias)."""

    width: str
    axes: tuple[Axis, ...]
    shared: bool


def shapes_of(kind: Any, config: Any) -> dict[str, torch.Size]:
    """Name -> shape of every tensor that the class would save for this config. Raises ModelError where it cannot be built."""
    try:
        with torch.device("meta"):
            state = kind._from_config(copy.deepcopy(config)).state_dict()
    except Exception as error:  # whatever a class says about a config that it does not like
        sizes = ", ".join(f"{name} {value}" for name, value in (depths_of(config) | widths_of(config)).items())
        raise ModelError(f"{kind.__name__} cannot be built with {sizes}: {error}") from error
    return {name: tensor.shape for name, tensor in state.items()}


def stacks_of(model: Any) -> dict[str, str]:
    """Depth -> the prefix of its layers' tensors ("model.layers."): the names that appear with one layer more."""
    config, kind = model.config, type(model)
    before = shapes_of(kind, config)
    return {name: _stack(kind, config, before, name, depth) for name, depth in depths_of(config).items()}


def _stack(kind: Any, config: Any, before: Mapping[str, torch.Size], name: str, depth: int) -> str:
    longer = shapes_of(kind, with_layers(config, name, [*range(depth), depth - 1]))
    found = {re.split(rf"(?<=\.){depth}(?=\.)", new)[0] for new in longer.keys() - before.keys()}
    if len(found) != 1:
        raise ModelError(
            f"{kind.__name__}: one layer more in {name} adds tensors under {sorted(found)}, not in one stack"
        )
    return found.pop()


def layer_of(tensor: str, stacks: Mapping[str, str]) -> str:
    """The layer that holds a tensor ("model.layers.0"), or EVERYWHERE for one outside the stacks."""
    for prefix in stacks.values():
        if found := re.match(re.escape(prefix) + r"\d+(?=\.)", tensor):
            return found.group()
    return EVERYWHERE


def layers_with(parts: Parts, stacks: Mapping[str, str]) -> list[str]:
    """The layers that choose their own units, or EVERYWHERE alone."""
    layers = dict.fromkeys(layer_of(axis.tensor, stacks) for axis in parts.axes)
    return [EVERYWHERE] if parts.shared else list(layers)


def layouts_of(kind: Any, config: Any, width: str) -> Layouts:
    """Every axis of a width. Raises ModelError where the config does not know it, nothing follows it, or a length is left unexplained."""
    widths = widths_of(config)
    if width not in widths:
        raise ModelError(f"{kind.__name__}: {why_without(config, width)}; leave {width} as it is")
    slopes = _slopes(kind, config, width)
    if not slopes and width == HEADS:
        raise ModelError(
            f"{kind.__name__}: the size of a head is hidden_size / heads ({widths['hidden_size']} / {widths[HEADS]}), so its "
            f"config cannot say that there are fewer heads; leave {HEADS} as it is"
        )
    if not slopes:
        raise ModelError(f"{kind.__name__}: no tensor follows {width}; leave {width} as it is")
    found = {}
    for (name, axis), (length, sizes) in slopes.items():
        explained = sum(size * widths[unit] for unit, size in sizes.items())
        if explained != length:
            raise ModelError(f"{kind.__name__}: axis {axis} of {name} is {length} long, {width} explains {explained}")
        found[name, axis] = _readings(sizes, widths["head_dim"] if width == HEADS else 1)
    return found


def _readings(sizes: Mapping[str, int], atom: int) -> list[Layout]:
    """Blocks of the smallest possible units one after the other; and, where that differs, all elements of a unit together."""
    together = tuple(Segment(unit, size) for unit, size in sizes.items())
    blocks: list[Segment] = []
    for unit, size in sizes.items():
        blocks += [Segment(unit, size)] if size % atom else [Segment(unit, atom)] * (size // atom)
    return [tuple(blocks)] if tuple(blocks) == together else [tuple(blocks), together]


def _slopes(kind: Any, config: Any, width: str) -> dict[tuple[str, int], tuple[int, dict[str, int]]]:
    """(tensor, axis) -> its length and its elements for each unit, from doubling the width (always legal); heads and groups apart."""
    widths = widths_of(config)
    before = shapes_of(kind, with_widths(config, {width: widths[width]}))
    if before != shapes_of(kind, config):
        raise ModelError(f"{kind.__name__}: its shape changes when {width} is written down; leave {width} as it is")
    steps = {width: {width: widths[width] * 2}}
    if width == HEADS and GROUPS in widths:
        steps[GROUPS] = {HEADS: widths[HEADS] * 2, GROUPS: widths[GROUPS] * 2}
    found: dict[tuple[str, int], tuple[int, dict[str, int]]] = {}
    for unit, change in steps.items():
        after = shapes_of(kind, with_widths(config, change))
        for name, shape in before.items():
            for axis, length in enumerate(shape):
                _, known = found.get((name, axis), (length, {}))
                grown = after[name][axis] - length - sum(size * widths[other] for other, size in known.items())
                if grown:
                    found[name, axis] = (length, known | {unit: grown // widths[unit]})
    return found


def positions(axis: Axis, kept: Sequence[int], widths: Mapping[str, int]) -> list[int]:
    """Where along an axis the kept units stand, in their order; of heads, the groups that they belong to."""
    found: list[int] = []
    offset = 0
    for segment in axis.segments:
        units = groups_of(kept, widths) if segment.width == GROUPS else kept
        found += [offset + unit * segment.size + inner for unit in units for inner in range(segment.size)]
        offset += segment.size * widths[segment.width]
    return found


def groups_of(heads: Sequence[int], widths: Mapping[str, int]) -> list[int]:
    """The KV groups of some heads, in the order of their first head; without groups every head is its own."""
    each = widths[HEADS] // widths.get(GROUPS, widths[HEADS])
    return list(dict.fromkeys(head // each for head in heads))
