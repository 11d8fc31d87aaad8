"""What llama.cpp calls the architectures that it runs, and what it takes for granted of them, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipelines.errors import ModelError
from pipelines.families.llama_cpp_tensors import (
    Rewrite,
    as_it_is,
    gpt2_tensors,
    llama_tensors,
    neox_tensors,
    raised_norms,
)
from pipelines.families.widths import depths_of, widths_of

#: Value of one metadata key; its Python type says its type in the file.
Fact = int | float | bool | str | list[str] | list[int] | list[float]
Facts = dict[str, Fact]

_SILU = ("silu", "swish")
#: llama.cpp has one table of GELU, by the tanh formula, for all of these.
_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_RMS, _LAYER = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_SLIDING = "sliding_attention"


def _nothing(config: Any) -> Facts:
    return {}


@dataclass(frozen=True)
class LlamaCpp:
    """One architecture. `fixed` are config values that its graph takes for granted."""

    arch: str
    activations: tuple[str, ...]
    norm: str = _RMS
    rewrite: Rewrite = as_it_is
    more: Callable[[Any], Facts] = _nothing
    fixed: Mapping[str, Any] = field(default_factory=dict)
    #: Heads times their size must be the hidden width.
    square: bool = False
    #: The output matrix must be in the file even where it is the embedding's.
    own_output: bool = False
    #: Its graph knows sliding windows, every n-th layer without one.
    windows: bool = False
    #: Its graph reads factors of the rotary frequencies.
    rope_factors: bool = False


def _experts(config: Any) -> Facts:
    return {"expert_count": config.num_local_experts, "expert_used_count": config.num_experts_per_tok}


def _parallel(config: Any) -> Facts:
    return {"use_parallel_residual": bool(config.use_parallel_residual)}


def _soft_caps(config: Any) -> Facts:
    found = {"attn_logit_softcapping": config.attn_logit_softcapping}
    found |= {"final_logit_softcapping": config.final_logit_softcapping}
    absent = [key for key, cap in found.items() if cap is None]
    if absent:
        raise ModelError(f"config.json: {absent[0]} is null, llama.cpp caps gemma2's logits always; no GGUF can say it")
    return _windows(config, layers_of_27b=46) | {key: float(cap) for key, cap in found.items()}


def _gemma3(config: Any) -> Facts:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None) is not None:
            raise ModelError(f"config.json: {key} is {getattr(config, key)}, which llama.cpp does not apply in gemma3")
    rope = rope_of(config, _SLIDING)
    if rope["rope_type"] != "default":
        raise ModelError(
            f"config.json: rope_type {rope['rope_type']!r} in windows, which llama.cpp's gemma3 cannot turn"
        )
    return _windows(config, layers_of_27b=62) | {"rope.freq_base_swa": float(rope["rope_theta"])}


def _windows(config: Any, layers_of_27b: int) -> Facts:
    """Window and its period: llama.cpp opens every n-th layer; and the scale of queries that it derives."""
    kinds = [kind == _SLIDING for kind in config.layer_types]
    periods = range(1, len(kinds) + 2)
    period = next((n for n in periods if [at % n < n - 1 for at in range(len(kinds))] == kinds), None)
    if period is None:
        raise ModelError(
            "config.json: layer_types has windows at irregular layers, llama.cpp knows only every n-th one without; keep a regular set of layers"
        )
    sizes = widths_of(config)
    whole = sizes["hidden_size"] // sizes["num_attention_heads"]
    scale = whole if len(kinds) == layers_of_27b else sizes["head_dim"]
    if config.query_pre_attn_scalar != scale:
        raise ModelError(
            f"config.json: query_pre_attn_scalar is {config.query_pre_attn_scalar}, llama.cpp divides by the root of {scale}"
        )
    return {"attention.sliding_window": config.sliding_window, "attention.sliding_window_pattern": period}


_LLAMA = LlamaCpp("llama", _SILU, rewrite=llama_tensors, rope_factors=True)

#: Architecture in transformers -> how llama.cpp runs it.
LLAMA_CPP: dict[str, LlamaCpp] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": LlamaCpp("llama", _SILU, rewrite=llama_tensors, rope_factors=True, more=_experts),
    "qwen2": LlamaCpp("qwen2", _SILU),
    "qwen3": LlamaCpp("qwen3", _SILU),
    "gemma2": LlamaCpp("gemma2", _GELU, rewrite=raised_norms, more=_soft_caps, windows=True),
    "gemma3_text": LlamaCpp("gemma3", _GELU, rewrite=raised_norms, more=_gemma3, windows=True),
    "gpt2": LlamaCpp(
        "gpt2",
        _GELU,
        _LAYER,
        gpt2_tensors,
        fixed={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        square=True,
    ),
    "gpt_neox": LlamaCpp("gptneox", _GELU, _LAYER, neox_tensors, _parallel, square=True, own_output=True),
    "phi": LlamaCpp("phi2", _GELU, _LAYER, fixed={"qk_layernorm": False}, square=True, own_output=True),
    "phi3": LlamaCpp("phi3", _SILU, square=True),
}


def llama_cpp_form(config: Any) -> LlamaCpp:
    """How llama.cpp runs this model. Raises ModelError, saying why, where it would compute something else."""
    form = LLAMA_CPP.get(config.model_type)
    if form is None:
        raise ModelError(
            f"architecture {config.model_type!r}: no GGUF is written for it; choose one of {', '.join(sorted(LLAMA_CPP))}"
        )
    sizes = widths_of(config)
    if form.square and sizes["num_attention_heads"] * sizes["head_dim"] != sizes["hidden_size"]:
        raise ModelError(
            f"config.json: {sizes['num_attention_heads']} heads of {sizes['head_dim']} beside a hidden width of {sizes['hidden_size']}; "
            f"llama.cpp's {form.arch} needs their product to be the width"
        )
    names = ("hidden_activation", "activation_function", "hidden_act")
    activation = next(value for name in names if (value := getattr(config, name, None)))
    if activation not in form.activations:
        raise ModelError(f"config.json: activation {activation!r}, llama.cpp's {form.arch} has {form.activations[0]!r}")
    for key, wanted in form.fixed.items():
        if (found := getattr(config, key, wanted)) != wanted:
            raise ModelError(f"config.json: {key} is {found!r}, llama.cpp computes {form.arch} with {wanted!r}")
    return form


def metadata_of(config: Any) -> Facts:
    """The model's sizes and constants under GGUF's names, without the architecture's prefix. Raises ModelError."""
    form, sizes = llama_cpp_form(config), widths_of(config)
    epsilons = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
    facts: Facts = {
        "vocab_size": sizes["vocab_size"],
        "context_length": context_of(config, form),
        "block_count": depths_of(config)["num_hidden_layers"],
        "embedding_length": sizes["hidden_size"],
        "feed_forward_length": sizes["intermediate_size"],
        "attention.head_count": sizes["num_attention_heads"],
        "attention.head_count_kv": sizes.get("num_key_value_heads", sizes["num_attention_heads"]),
        "attention.key_length": sizes["head_dim"],
        "attention.value_length": sizes["head_dim"],
        form.norm: float(next(value for name in epsilons if (value := getattr(config, name, None)) is not None)),
    }
    return facts | _rope_facts(config, form, sizes["head_dim"]) | form.more(config)


def context_of(config: Any, form: LlamaCpp) -> int:
    """Tokens that llama.cpp may see: up to the window where its graph has none, since it computes the same only so far."""
    limit: int = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    windowed = _SLIDING in kinds if kinds else getattr(config, "use_sliding_window", True)
    return min(limit, window) if window and windowed and not form.windows else limit


def rope_of(config: Any, kind: str = "full_attention") -> dict[str, Any]:
    """The parameters of the rotary positions, of one kind of layers where kinds differ; empty without any."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    found: dict[str, Any] = rope.get(kind, rope)
    return found


def _rope_facts(config: Any, form: LlamaCpp, head: int) -> Facts:
    rope = rope_of(config)
    if not rope:
        return {}
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear") and not (kind == "llama3" and form.rope_factors):
        raise ModelError(
            f"config.json: rope_type {kind!r} of {form.arch} is not carried over to GGUF; choose default or linear"
        )
    facts: Facts = {
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1.0)),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if kind == "linear":
        facts |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return facts


def tensors_of(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under a name that the `gguf` package's own map knows, laid out as llama.cpp's graph reads it."""
    import torch

    config = model.config
    form = llama_cpp_form(config)
    output = "lm_head.weight" if "lm_head.weight" in model.state_dict() else "embed_out.weight"
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, value in model.state_dict().items():
        if name != output or not tied or form.own_output:
            yield from form.rewrite(config, name, value)
    rope = rope_of(config)
    if rope.get("rope_type") == "llama3":
        turned = model.base_model.rotary_emb.inv_freq.double()
        plain = rope["rope_theta"] ** -(torch.arange(len(turned), dtype=torch.float64) / len(turned))
        yield "rope_freqs.weight", (plain / turned).float()
