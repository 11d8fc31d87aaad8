"""Structured pruning of generators: their shape, what can be cut of it, and a smaller model of the same class.

How the parts are found stands in axes.py (shapes) and probing.py (proof); the cut itself in cutting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import ModelError
from pipelines.families.widths import depths_of, widths_of
from pipelines.techniques.axes import GROUPS, HEADS, Parts, stacks_of
from pipelines.techniques.cutting import Kept, cut
from pipelines.techniques.probing import check_depth, probed

__all__ = ["CUTTABLE", "DEPTHS", "Kept", "Shape", "possible", "shape_of", "sliced", "with_heads", "with_layers_alone"]

DEPTHS = ("num_hidden_layers", "num_encoder_layers")
CUTTABLE = ("intermediate_size", HEADS, "hidden_size", "num_experts")


@dataclass(frozen=True)
class Shape:
    """What structured pruning changes, the same in every layer; 0 where the architecture has no such width.

    `num_hidden_layers` counts the decoder's layers; `num_encoder_layers` is 0 without an encoder.
    """

    num_hidden_layers: int
    num_encoder_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    hidden_size: int
    num_experts: int


def shape_of(model: Any) -> Shape:
    """The present shape of a model; without KV groups every head is its own group."""
    sizes = {**depths_of(model.config), **widths_of(model.config)}
    sizes.setdefault(GROUPS, sizes.get(HEADS, 0))
    return Shape(**{name: sizes.get(name, 0) for name in Shape.__dataclass_fields__})


def with_heads(start: Shape, heads: int) -> int:
    """The KV groups beside `heads` heads: fewer groups of the same size where that is possible, else as many smaller ones.

    Raises ModelError, with the legal numbers, where heads and groups do not fit.
    """
    groups = start.num_key_value_heads
    each = start.num_attention_heads // groups
    if heads % each == 0 and 0 < heads <= start.num_attention_heads:
        return heads // each
    if heads % groups == 0 and 0 < heads <= start.num_attention_heads:
        return groups
    legal = [count for count in range(1, start.num_attention_heads + 1) if count % each == 0 or count % groups == 0]
    raise ModelError(
        f"{HEADS} cannot become {heads} with {groups} KV groups of {each} heads; choose one of {', '.join(map(str, legal))}"
    )


def possible(model: Any) -> dict[str, str | None]:
    """Depth or width -> None where this architecture can be cut in it, else the reason why not. Weights do not matter."""
    stacks = stacks_of(model)
    depths = {depth: _reason(check_depth, model, depth, stacks) for depth in DEPTHS}
    return depths | {width: _reason(probed, model, width, stacks) for width in CUTTABLE}


def _reason(attempt: Callable[..., Any], *arguments: Any) -> str | None:
    try:
        attempt(*arguments)
    except ModelError as error:
        return str(error)
    return None


def sliced(model: Any, keep: Kept) -> Any:
    """A new model of the same class with the kept layers and units alone; plain transformers saves, loads and runs it.

    Tied weights stay tied. Raises ModelError where a width cannot be cut in this architecture, or a choice is not legal.
    """
    stacks = stacks_of(model)
    parts: dict[str, Parts] = {}
    for width in keep.units:
        if width not in CUTTABLE:
            raise ModelError(f"{width} is not a width that can be cut; choose from {', '.join(CUTTABLE)}")
        parts[width] = probed(model, width, stacks)
    return cut(model, keep, parts, stacks)


def with_layers_alone(model: Any, layers: Sequence[int]) -> Any:
    """A new model with these layers alone, of an encoder-decoder in both stacks. Raises ModelError for a layer that is not there."""
    return sliced(model, Kept(layers=dict.fromkeys(depths_of(model.config), layers)))
