"""What a transformers config calls each width, as data, and how to read and change it there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

#: Width -> every name it has in a config; all that a config knows are set together (BART has one for each stack).
KEYS: dict[str, tuple[str, ...]] = {
    "intermediate_size": (
        "intermediate_size",
        "n_inner",
        "hidden_dim",
        "ffn_dim",
        "d_ff",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
    ),
    "num_attention_heads": (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
    ),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "num_experts": ("num_local_experts", "num_experts"),
    "num_experts_per_tok": ("num_experts_per_tok",),
    "vocab_size": ("vocab_size",),
}
DEPTHS: dict[str, tuple[str, ...]] = {"num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers")}
TWO_DEPTHS: dict[str, tuple[str, ...]] = {
    "num_encoder_layers": ("encoder_layers", "num_layers"),
    "num_hidden_layers": ("decoder_layers", "num_decoder_layers"),
}
#: Lists with one entry a layer; the last writes the same as runs, [[[kind, ...], times], ...].
PER_LAYER = ("layer_types", "attention_layers", "mlp_layer_types")
RUNS = "attention_types"
#: Ids that must lie inside the vocabulary.
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")


def depths_of(config: Any) -> dict[str, int]:
    """Layers of each stack: `num_hidden_layers` (the decoder's) and, in an encoder-decoder, `num_encoder_layers`."""
    table = TWO_DEPTHS if config.is_encoder_decoder else DEPTHS
    read = {name: _read(config, keys) for name, keys in table.items()}
    return {name: depth for name, depth in read.items() if depth is not None}


def widths_of(config: Any) -> dict[str, int]:
    """Every width that the config names or implies: heads of a group, the head's size and the FFN have the usual rules.

    A width that differs between stacks is left out; see `why_without`.
    """
    read = {name: _read(config, keys) for name, keys in KEYS.items()}
    heads, hidden = read["num_attention_heads"], read["hidden_size"]
    if read["head_dim"] is None and heads and hidden:
        read["head_dim"] = hidden // heads
    if _unsaid(config, "num_key_value_heads"):
        read["num_key_value_heads"] = heads
    if _unsaid(config, "intermediate_size") and hidden:
        read["intermediate_size"] = 4 * hidden
    return {name: value for name, value in read.items() if value is not None}


def why_without(config: Any, width: str) -> str:
    """Why `widths_of` leaves a width out."""
    values = {key: getattr(config, key) for key in _present(config, KEYS[width])}
    return f"its config has unlike widths {values}" if values else f"its config names no {width}"


def with_widths(config: Any, changes: Mapping[str, int]) -> Any:
    """A copy of the config with other widths.

    What they would imply in the old config is written down first: the head's size, groups and FFN stay as they are.
    """
    changed = copy.deepcopy(config)
    pinned = widths_of(config) if {"hidden_size", "num_attention_heads"} & set(changes) else {}
    for name, value in (pinned | dict(changes)).items():
        keys = _present(config, KEYS[name]) or KEYS[name][:1]
        for key in keys:
            setattr(changed, key, value)
    return changed


def with_layers(config: Any, depth: str, kept: Sequence[int]) -> Any:
    """A copy of the config whose stack `depth` consists of the old layers `kept`, its lists with one entry a layer too."""
    changed = copy.deepcopy(config)
    table = TWO_DEPTHS if config.is_encoder_decoder else DEPTHS
    for key in _present(config, table[depth]):
        setattr(changed, key, len(kept))
    if depth != "num_hidden_layers":
        return changed
    for key in PER_LAYER:
        if isinstance(entries := getattr(config, key, None), list):
            setattr(changed, key, [entries[layer] for layer in kept])
            if key == "attention_layers":
                setattr(changed, RUNS, [[[entries[layer] for layer in kept], 1]])
    return changed


def with_vocabulary(config: Any, size: int) -> Any:
    """A copy with a vocabulary of `size`, for a stand-in model; special tokens beyond it become token 0."""
    changed = with_widths(config, {"vocab_size": size})
    for key in TOKEN_IDS:
        if isinstance(value := getattr(config, key, None), int) and value >= size:
            setattr(changed, key, 0)
        elif isinstance(value, list):
            setattr(changed, key, [0])
    return changed


def _present(config: Any, keys: Sequence[str]) -> list[str]:
    written = config.to_dict()
    return [key for key in keys if key in written]


def _unsaid(config: Any, width: str) -> bool:
    """Whether the config knows the width's name but leaves it null."""
    values = [getattr(config, key) for key in _present(config, KEYS[width])]
    return bool(values) and all(value is None for value in values)


def _read(config: Any, keys: Sequence[str]) -> int | None:
    numbers = {value for key in _present(config, keys) if isinstance(value := getattr(config, key), int)}
    return numbers.pop() if len(numbers) == 1 else None
