"""What every exported generator shares: attention, experts and a cache that trace cleanly, and the trace itself."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.techniques.exporting import OPSET, quiet, strip_traces, unburdened

#: The name that our attention and experts are registered under in transformers.
_PLAIN = "factory_plain"

#: A protobuf message ends at 2 GiB: weights beyond this go to a file beside it.
_LARGEST_MESSAGE = 2**31 - 2**24

#: Name of an input or output -> its axes: a word for a free one, a number for a fixed one.
Axes = dict[str, tuple[str | int, ...]]


def traceable(model: Any) -> Any:
    """A copy in evaluation mode whose attention and experts are the plain ones of this module, where transformers lets them be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(_PLAIN, grouped_attention)
    AttentionMaskInterface.register(_PLAIN, eager_mask)
    ALL_EXPERTS_FUNCTIONS.register(_PLAIN, every_expert)
    twin = copy.deepcopy(model).eval()
    with quiet("transformers"):  # architectures with an attention of their own say that they keep it
        twin.set_attn_implementation(_PLAIN)
        if twin._can_set_experts_implementation():
            twin.set_experts_implementation(_PLAIN)
    return twin


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention of queries [B, H, T, D] over keys and values [B, G, S, D], H a multiple of G: [B, T, H, D].

    Grouped queries share a product instead of copies of the cache, which `repeat_kv` would write at every step.
    """
    if more.get("s_aux") is not None:
        raise ModelError("attention sinks cannot be exported")
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    folded = query.reshape(batch, groups, -1, size) if heads != groups else query
    scores = torch.matmul(folded, key.transpose(2, 3)) * (size**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if heads != groups:
        scores = scores.reshape(batch, heads, length, -1)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1)
    if heads != groups:
        weights = weights.reshape(batch, groups, (heads // groups) * length, -1)
    mixed = torch.matmul(weights, value)
    if heads != groups:
        mixed = mixed.reshape(batch, heads, length, -1)
    return mixed.transpose(1, 2), None


def every_expert(module: Any, states: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """Mixture of experts with every expert computed and most of them weighted by zero: states [N, H] -> [N, H].

    chosen [N, k] are the experts of each token, shares [N, k] their weights. Right for every routing, and each expert's
    matrices stand in the graph as constants that can be quantized; the price is the work of the experts not chosen.
    """
    if module.has_bias or module.is_transposed or not module.has_gate or module.has_post_expert_norm:
        raise ModelError(f"{type(module).__name__}: experts of this form cannot be exported")
    total = torch.zeros_like(states)
    for index in range(module.num_experts):
        share = (shares * (chosen == index).to(shares.dtype)).sum(dim=-1, keepdim=True)
        inner = module._apply_gate(nn.functional.linear(states, module.gate_up_proj[index]))
        total = total + share * nn.functional.linear(inner, module.down_proj[index])
    return total


def growing_cache(past: Sequence[Tensor]) -> Any:
    """A cache that holds keys and values [B, G, P, D] of each layer in turn, and grows by concatenation.

    Sliding-window layers keep everything too: the mask applies the window, so one graph serves any length.
    """
    from transformers.cache_utils import Cache, DynamicLayer

    class GrowingLayer(DynamicLayer):  # type: ignore[misc]
        def __init__(self, keys: Tensor, values: Tensor) -> None:
            super().__init__()
            self.keys, self.values = keys, values
            self.dtype, self.device = keys.dtype, keys.device
            self.is_initialized = True

        def get_seq_length(self) -> Any:
            return self.keys.shape[-2]

    return Cache(layers=[GrowingLayer(key, value) for key, value in zip(past[::2], past[1::2], strict=True)])


def cached_tensors(cache: Any) -> list[Tensor]:
    """Keys and values of each layer in turn."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def trace(module: nn.Module, arguments: tuple[Any, ...], inputs: Axes, outputs: Axes) -> Any:
    """The module as an ONNX model with these names and axes of its flat inputs and outputs, in order.

    `arguments` is what the module is called with; a tuple among them is flat inputs of one variadic parameter.
    """
    shapes = _dynamic_shapes(arguments, list(inputs.values()))
    with warnings.catch_warnings(), quiet("torch"), unburdened(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated internals
        program = torch.onnx.export(
            module.eval(),
            tuple(
                item for argument in arguments for item in (argument if isinstance(argument, tuple) else (argument,))
            ),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("the ONNX exporter answered nothing")
    model = program.model_proto
    strip_traces(model)
    _share_equal_weights(model)
    _name_axes(model.graph.input, inputs)
    _name_axes(model.graph.output, outputs)
    return model


def save_graph(model: Any, out: Path) -> None:
    """Write one file; weights beyond protobuf's 2 GiB go to NAME.data beside it."""
    import onnx

    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights < _LARGEST_MESSAGE:
        onnx.save(model, str(out))
        return
    data = f"{out.name}.data"
    (out.parent / data).unlink(missing_ok=True)  # onnx appends to a file that is there
    onnx.save(model, str(out), save_as_external_data=True, location=data, size_threshold=1024)


def _dynamic_shapes(arguments: tuple[Any, ...], axes: list[tuple[str | int, ...]]) -> tuple[Any, ...]:
    flat = [
        {place: torch.export.Dim.DYNAMIC for place, axis in enumerate(names) if isinstance(axis, str)} for names in axes
    ]
    waiting = iter(flat)
    return tuple(
        tuple(next(waiting) for _ in argument) if isinstance(argument, tuple) else next(waiting)
        for argument in arguments
    )


def _name_axes(values: Any, axes: Axes) -> None:
    """Free axes get our names instead of the tracer's numbered symbols."""
    for value in values:
        shape = value.type.tensor_type.shape
        for dimension, axis in zip(shape.dim, axes[value.name], strict=True):
            if isinstance(axis, str):
                dimension.dim_param = axis
            elif dimension.dim_value != axis:
                raise ModelError(f"exported graph: {value.name} has an axis of {dimension} where {axis} was expected")


def _share_equal_weights(model: Any) -> None:
    """Constants of equal bytes become one: rotary tables and position masks come once a layer."""
    first: dict[tuple[Any, ...], str] = {}
    replaced: dict[str, str] = {}
    for tensor in model.graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(tensor.raw_data).digest())
        if tensor.raw_data and first.setdefault(key, tensor.name) != tensor.name:
            replaced[tensor.name] = first[key]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name in replaced:
            del model.graph.initializer[index]
