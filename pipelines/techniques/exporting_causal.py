"""A causal language model as one ONNX file with its cache of keys and values inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.techniques.tracing import Axes, cached_tensors, growing_cache, save_graph, trace, traceable

#: Sizes of the traced sample: no two alike, none 0 or 1, so that no axis is taken for another or for a constant.
_BATCH, _LENGTH, _PAST = 2, 5, 3


def export_causal(model: Any, out: Path, max_length: int) -> None:
    """Write model.onnx, with free batch B, length T and past P (0 on the first step).

    In: input_ids [B, T], attention_mask [B, P + T], position_ids [B, T] int64 and past_key_values.{i}.key / .value
    [B, groups, P, head_size] float32; num_logits_to_keep, an int64 scalar that may be left out: logits of only the last
    so many positions, 0 for all. Out: logits [B, T or fewer, V] and present.{i}.key / .value [B, groups, P + T, head_size].
    The bytes depend on the weights alone. Raises ModelError where the model cannot hold max_length tokens or has no such cache.
    """
    _require_length(model.config, max_length)
    twin = traceable(model)
    _trim_position_masks(twin, max_length)
    sizes = _cache_sizes(twin)
    names = [f"{layer}.{kind}" for layer in range(len(sizes) // 2) for kind in ("key", "value")]
    inputs: Axes = {
        "input_ids": ("batch", "length"),
        "attention_mask": ("batch", "total"),
        "position_ids": ("batch", "length"),
        "kept_positions": ("kept",),
    }
    outputs: Axes = {"logits": ("batch", "kept", twin.get_output_embeddings().weight.shape[0])}
    for name, (groups, size) in zip(names, sizes, strict=True):
        inputs[f"past_key_values.{name}"] = ("batch", groups, "past", size)
        outputs[f"present.{name}"] = ("batch", groups, "total", size)
    graph = trace(_Step(twin), _sample(sizes), inputs, outputs)
    _keep_last_logits(graph)
    save_graph(graph, out)


class _Step(nn.Module):  # type: ignore[misc]
    """One forward pass with flat inputs and outputs: ids, mask, positions, rows of logits wanted, and the cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor, kept: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = growing_cache(past)
        answer = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=kept,
        )
        return (answer.logits, *cached_tensors(cache))


def _sample(sizes: list[tuple[int, int]]) -> tuple[Any, ...]:
    """Arguments of the trace: padded on the left, since from an unpadded sample the mask would leave the graph."""
    mask = torch.ones(_BATCH, _PAST + _LENGTH, dtype=torch.long)
    mask[1, :2] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, _PAST:]
    ids = torch.arange(_BATCH * _LENGTH).reshape(_BATCH, _LENGTH)
    past = tuple(torch.zeros(_BATCH, groups, _PAST, size) for groups, size in sizes)
    return ids, mask, positions, torch.arange(1, _LENGTH), past


def _cache_sizes(model: Any) -> list[tuple[int, int]]:
    """(groups, head size) of keys and of values of each layer in turn, as a forward pass leaves them."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    ids = torch.zeros(1, 2, dtype=torch.long)
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    tensors = cached_tensors(cache)
    if not tensors or any(not isinstance(tensor, Tensor) or tensor.ndim != 4 for tensor in tensors):
        raise ModelError(
            f"{type(model).__name__}: its cache is no keys and values of attention layers; it cannot be exported"
        )
    return [(tensor.shape[1], tensor.shape[3]) for tensor in tensors]


def _require_length(config: Any, max_length: int) -> None:
    """Raise where positions up to max_length do not exist, or rotate otherwise than the trace, of a short text, shows."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        raise ModelError(f"max_length {max_length} is beyond the model's context of {limit} tokens; lower max_length")
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in [rope, *(item for item in rope.values() if isinstance(item, dict))]:
        kind = parameters.get("rope_type", "default")
        origin = parameters.get("original_max_position_embeddings") or limit
        if kind in ("dynamic", "longrope") and origin is not None and max_length > origin:
            raise ModelError(
                f"rope_type {kind!r} turns differently beyond {origin} tokens, which one graph cannot; lower max_length to {origin}"
            )


def _trim_position_masks(model: Any, max_length: int) -> None:
    """Square tables of which position sees which (GPT-Neo keeps one a layer) shrink to the length in use."""
    for module in model.modules():
        for name, table in list(module.named_buffers(recurse=False)):
            square = table.dtype == torch.bool and table.ndim == 4 and table.shape[-1] == table.shape[-2]
            if square and table.shape[-1] > max_length:
                module.register_buffer(name, table[..., :max_length, :max_length].clone(), persistent=False)


def _keep_last_logits(model: Any) -> None:
    """Replace the traced input kept_positions by num_logits_to_keep, a scalar with a default of 0: range(T - n if n else 0, T)."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    place = [value.name for value in graph.input].index("kept_positions")
    del graph.input[place]
    graph.input.append(helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, []))
    constants = {"num_logits_to_keep": 0, "kept_zero": 0, "kept_one": 1}
    for name, number in constants.items():
        graph.initializer.append(numpy_helper.from_array(torch.tensor(number).numpy(), name))
    graph.initializer.append(numpy_helper.from_array(torch.tensor([], dtype=torch.long).numpy(), "kept_scalar"))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["kept_shape"], start=1, end=2),
        helper.make_node("Reshape", ["kept_shape", "kept_scalar"], ["kept_end"]),
        helper.make_node("Sub", ["kept_end", "num_logits_to_keep"], ["kept_first"]),
        helper.make_node("Max", ["kept_first", "kept_zero"], ["kept_inside"]),
        helper.make_node("Greater", ["num_logits_to_keep", "kept_zero"], ["kept_some"]),
        helper.make_node("Where", ["kept_some", "kept_inside", "kept_zero"], ["kept_start"]),
        helper.make_node("Range", ["kept_start", "kept_end", "kept_one"], ["kept_positions"]),
    ]
    rest = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*nodes, *rest])
