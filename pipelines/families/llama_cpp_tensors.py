"""How the tensors of each architecture are rearranged for llama.cpp's graphs: (config, name, value) to named tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Named = list[tuple[str, Tensor]]
Rewrite = Callable[[Any, str, Tensor], Named]


def as_it_is(config: Any, name: str, value: Tensor) -> Named:
    """Nothing changes."""
    return [(name, value)]


def llama_tensors(config: Any, name: str, value: Tensor) -> Named:
    """Queries and keys [heads * size, ...]: llama.cpp turns neighbours, transformers the halves of a head. Experts by kind."""
    if ".q_proj." in name:
        return [(name, _paired(value, config.num_attention_heads))]
    if ".k_proj." in name:
        return [(name, _paired(value, config.num_key_value_heads))]
    if ".mlp.experts." in name:
        place = f"layers.{name.split('.')[2]}.feed_forward.experts"
        if name.endswith("gate_up_proj"):
            gate, up = value.chunk(2, dim=1)
            return [(f"{place}.w1.weight", gate), (f"{place}.w3.weight", up)]
        return [(f"{place}.w2.weight", value)]
    return [(name.replace(".mlp.gate.", ".block_sparse_moe.gate."), value)]


def _paired(value: Tensor, heads: int) -> Tensor:
    split = value.reshape(heads, 2, len(value) // heads // 2, *value.shape[1:])
    return split.transpose(1, 2).reshape(value.shape)


def raised_norms(config: Any, name: str, value: Tensor) -> Named:
    """Gemma multiplies by one plus the weight."""
    return [(name, value + 1 if name.endswith("norm.weight") else value)]


def gpt2_tensors(config: Any, name: str, value: Tensor) -> Named:
    """Conv1D keeps [in, out]."""
    turned = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return [(name, value.T if turned else value)]


def neox_tensors(config: Any, name: str, value: Tensor) -> Named:
    """Query, key and value stand head by head; llama.cpp wants all queries first."""
    if ".query_key_value." not in name:
        return [(name, value)]
    heads = config.num_attention_heads
    split = value.reshape(heads, 3, len(value) // heads // 3, *value.shape[1:])
    return [(name, torch.cat([split[:, part].flatten(0, 1) for part in range(3)]))]
