"""Proof that the units of a width are where shapes say: on a small random model, permuting and cutting them must hold."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.families.widths import depths_of, widths_of, with_layers, with_vocabulary, with_widths
from pipelines.techniques.axes import (
    EVERYWHERE,
    GROUPS,
    HEADS,
    Axis,
    Layouts,
    Parts,
    layer_of,
    layers_with,
    layouts_of,
)
from pipelines.techniques.cutting import Kept, Units, cut, narrowed, silenced

#: A unit whose weights are all zero adds nothing, so cutting it must change nothing. Not so for a residual channel, which
#: norms count, and for an expert, which the router may still choose.
_SILENT_WHEN_ZERO = ("intermediate_size", HEADS)
#: Largest difference of logits, as a share of the largest logit, that still counts as none (float32).
_TOLERANCE = 1e-4


def probed(model: Any, width: str, stacks: Mapping[str, str]) -> Parts:
    """The parts of a width, proven on a random model of the same architecture with two layers a stack.

    Each reading of a fused axis is tried until permuting the units in all their axes leaves the logits as they are, first by
    the same permutation in every layer, then by one of its own. Raises ModelError with the reason where the width cannot be cut.
    """
    kind, small = type(model), _stand_in(model.config)
    layouts, small_layouts = layouts_of(kind, model.config, width), layouts_of(kind, small, width)
    trial = _random(kind, small)
    fused = sorted({_pattern(name, stacks) for (name, _), readings in layouts.items() if len(readings) > 1})
    for choice in itertools.product((0, 1), repeat=len(fused)):
        chosen = dict(zip(fused, choice, strict=True))
        parts = Parts(width, _chosen(small_layouts, chosen, stacks), shared=True)
        if _permutable(trial, parts, stacks):
            shared = not _separable(trial, parts, stacks)
            _check_zero(trial, Parts(width, parts.axes, shared), stacks)
            return Parts(width, _chosen(layouts, chosen, stacks), shared)
    raise ModelError(_not_found(kind, model.config, width))


def check_depth(model: Any, depth: str, stacks: Mapping[str, str]) -> None:
    """Raises ModelError where the stand-in cannot lose its first layer: the others must find their place in a class with fewer."""
    if depth not in stacks:
        raise ModelError(f"{type(model).__name__}: it has no {depth.removeprefix('num_').replace('_', ' ')}")
    trial = _random(type(model), _stand_in(model.config))
    last = depths_of(trial.config)[depth] - 1
    smaller = cut(trial, Kept(layers={depth: [last]}), {}, stacks)
    if not bool(_logits(smaller).isfinite().all()):
        raise ModelError(f"{type(model).__name__}: with one layer its logits are not finite; leave {depth} as it is")


def _not_found(kind: Any, config: Any, width: str) -> str:
    if width == "hidden_size":
        return (
            f"{kind.__name__}: hidden_size is also the width of its {widths_of(config)[HEADS]} heads together, so a channel "
            "cannot go without a part of a head; leave hidden_size as it is"
        )
    return f"{kind.__name__}: the units of {width} cannot be told apart in its tensors; leave {width} as it is"


def _pattern(tensor: str, stacks: Mapping[str, str]) -> str:
    """A tensor's name without its layer: layers hold their units alike."""
    return tensor.removeprefix(layer_of(tensor, stacks))


def _chosen(layouts: Layouts, chosen: Mapping[str, int], stacks: Mapping[str, str]) -> tuple[Axis, ...]:
    return tuple(
        Axis(name, axis, readings[chosen[_pattern(name, stacks)] if len(readings) > 1 else 0])
        for (name, axis), readings in layouts.items()
    )


def _stand_in(config: Any) -> Any:
    """The same architecture with at most two layers a stack, a narrow FFN and few tokens."""
    for name, depth in depths_of(config).items():
        config = with_layers(config, name, range(min(depth, 2)))
    widths = widths_of(config)
    if widths.get("intermediate_size", 0) > 16:
        config = with_widths(config, {"intermediate_size": 16})
    return with_vocabulary(config, min(widths["vocab_size"], 64))


def _random(kind: Any, config: Any) -> Any:
    """A random model whose every tensor, norms and biases too, matters to its logits."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind._from_config(copy.deepcopy(config), dtype=torch.float32).eval()
        for weight in model.parameters():
            noise = torch.randn_like(weight)
            if weight.ndim == 1:
                weight.add_(noise * 0.3)
            else:
                weight.copy_(noise / weight.shape[-1] ** 0.5)
    return model


def _logits(model: Any) -> Tensor:
    tokens = torch.arange(24).mul(7).remainder(model.config.vocab_size).reshape(2, 12)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(1)
    with torch.no_grad():
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def _same(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= _TOLERANCE * first.abs().max())


def _permutable(trial: Any, parts: Parts, stacks: Mapping[str, str]) -> bool:
    """Whether one permutation of the units, the same in every layer, leaves the function as it is."""
    return _unchanged(trial, parts, {EVERYWHERE: _rotated(parts.width, widths_of(trial.config))}, stacks)


def _separable(trial: Any, parts: Parts, stacks: Mapping[str, str]) -> bool:
    """Whether every layer may have its own permutation: every second layer is permuted, the others stay."""
    layers = dict.fromkeys(layer_of(axis.tensor, stacks) for axis in parts.axes)
    if EVERYWHERE in layers:
        return False
    widths = widths_of(trial.config)
    orders = (_rotated(parts.width, widths), range(widths[parts.width]))
    return _unchanged(trial, parts, {layer: orders[turn % 2] for turn, layer in enumerate(layers)}, stacks)


def _unchanged(trial: Any, parts: Parts, units: Units, stacks: Mapping[str, str]) -> bool:
    other = copy.deepcopy(trial)
    other.load_state_dict(narrowed(trial, {parts.width: units}, {parts.width: parts}, stacks))
    return _same(_logits(trial), _logits(other))


def _rotated(width: str, widths: Mapping[str, int]) -> list[int]:
    """Every unit moved by one; of heads, whole groups, and the heads within each."""
    groups = widths.get(GROUPS, widths[HEADS]) if width == HEADS else 1
    each = widths[width] // groups
    return [(group + 1) % groups * each + (inner + 1) % each for group in range(groups) for inner in range(each)]


def _check_zero(trial: Any, parts: Parts, stacks: Mapping[str, str]) -> None:
    """Raises ModelError where cutting units whose weights are zero is not the same as leaving them."""
    if parts.width not in _SILENT_WHEN_ZERO:
        return
    kept = _some(parts.width, widths_of(trial.config))
    units = {parts.width: dict.fromkeys(layers_with(parts, stacks), kept)}
    silent = silenced(trial, units, {parts.width: parts}, stacks)
    smaller = cut(silent, Kept(units=units), {parts.width: parts}, stacks)
    if not _same(_logits(silent), _logits(smaller)):
        raise ModelError(
            f"{type(trial).__name__}: taking out units of {parts.width} that are zero changes its logits; "
            f"leave {parts.width} as it is"
        )


def _some(width: str, widths: Mapping[str, int]) -> list[int]:
    """A legal choice that leaves something out where it can: all groups of heads but the first, or every second unit."""
    if width == HEADS and (groups := widths.get(GROUPS, widths[HEADS])) > 1:
        return list(range(widths[HEADS] // groups, widths[HEADS]))
    return list(range(1, widths[width], 2)) or [0]
