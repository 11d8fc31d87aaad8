"""Where each encoder architecture keeps its parts: attribute paths, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

from pipelines.errors import ModelError


@dataclass(frozen=True)
class Anatomy:
    """Attribute paths. `layers` starts at the base model, the others at one layer; None: the architecture has no such plain part."""

    layers: str
    queries: str | None
    keys: str | None
    values: str | None
    attention: str | None
    attention_out: str | None
    ffn_up: str | None
    ffn_down: str | None
    positions: str | None
    position_offset: int
    head: tuple[str, ...]
    width_name: str
    heads_name: str
    depth_name: str
    #: One matrix that makes queries, keys and values, each a third of its outputs.
    fused: str | None = None
    #: Parts of `attention` that belong to its heads too, in some checkpoints: where one is there, no head can go.
    beside_heads: tuple[str, ...] = ()
    #: Whether the model takes a finished mask [B, 1, 1, T]; else it makes masks of its own, such as windows, of [B, T].
    takes_additive_mask: bool = True
    #: A norm that every layer has but the first: what becomes the first loses it, and recovery makes up for it.
    only_later: str | None = None
    #: Why FFN width and heads stay, where `attention_out` and the FFN's parts are None.
    why_uncut: str = "its layers are bottlenecks"


_BERT = Anatomy(
    layers="encoder.layer",
    queries="attention.self.query",
    keys="attention.self.key",
    values="attention.self.value",
    attention="attention.self",
    attention_out="attention.output.dense",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    positions="embeddings.position_embeddings",
    position_offset=0,
    head=("classifier",),
    width_name="intermediate_size",
    heads_name="num_attention_heads",
    depth_name="num_hidden_layers",
)

# Rotary positions; gate and value of the FFN, and queries, keys and values, are one matrix each.
_MODERNBERT = Anatomy(
    layers="layers",
    queries=None,
    keys=None,
    values=None,
    attention=None,
    attention_out=None,
    ffn_up=None,
    ffn_down=None,
    positions=None,
    position_offset=0,
    head=("classifier",),
    width_name="intermediate_size",
    heads_name="num_attention_heads",
    depth_name="num_hidden_layers",
    fused="attn.Wqkv",
    only_later="attn_norm",
    takes_additive_mask=False,
    why_uncut="its layers fuse queries, keys and values, and the FFN's two inputs, into one matrix each",
)

ANATOMIES: dict[str, Anatomy] = {
    "bert": _BERT,
    "roberta": Anatomy(**{**_BERT.__dict__, "position_offset": 2, "head": ("classifier.out_proj",)}),
    "distilbert": Anatomy(
        layers="transformer.layer",
        queries="attention.q_lin",
        keys="attention.k_lin",
        values="attention.v_lin",
        attention="attention",
        attention_out="attention.out_lin",
        ffn_up="ffn.lin1",
        ffn_down="ffn.lin2",
        positions="embeddings.position_embeddings",
        position_offset=0,
        head=("classifier",),
        width_name="hidden_dim",
        heads_name="n_heads",
        depth_name="n_layers",
    ),
    # Bottlenecks and stacked feed-forward blocks: depth and vocabulary only.
    "mobilebert": Anatomy(
        layers="encoder.layer",
        queries="attention.self.query",
        keys="attention.self.key",
        values="attention.self.value",
        attention=None,
        attention_out=None,
        ffn_up=None,
        ffn_down=None,
        positions="embeddings.position_embeddings",
        position_offset=0,
        head=("classifier",),
        width_name="intermediate_size",
        heads_name="num_attention_heads",
        depth_name="num_hidden_layers",
    ),
    # Positions are relative: one table for the whole stack, bucketed, of which nothing can go.
    "deberta-v2": Anatomy(
        **{
            **_BERT.__dict__,
            "queries": "attention.self.query_proj",
            "keys": "attention.self.key_proj",
            "values": "attention.self.value_proj",
            "positions": None,
            "beside_heads": ("pos_key_proj", "pos_query_proj"),
            "takes_additive_mask": False,
        }
    ),
    "modernbert": _MODERNBERT,
    # Rotary positions too, keys and values shared by heads, a gated FFN. Without layers it is the static student.
    "eurobert": Anatomy(
        **{
            **_MODERNBERT.__dict__,
            "queries": "self_attn.q_proj",
            "keys": "self_attn.k_proj",
            "values": "self_attn.v_proj",
            "fused": None,
            "only_later": None,
            "why_uncut": "its heads share keys and values, and its FFN is gated",
        }
    ),
}


def anatomy_of(model: Any) -> Anatomy:
    """The anatomy of a loaded model."""
    return anatomy_named(model.config.model_type)


def anatomy_named(kind: str) -> Anatomy:
    """The anatomy of an architecture; ModelError where it is not in the table."""
    if kind not in ANATOMIES:
        known = ", ".join(sorted(ANATOMIES))
        raise ModelError(f"architecture {kind!r} is not served for text-classification; choose one of {known}")
    return ANATOMIES[kind]


def part(root: Any, path: str) -> Any:
    """The sub-module at a dotted path."""
    return reduce(getattr, path.split("."), root)


def replace_part(root: Any, path: str, value: Any) -> None:
    """Put a module at a dotted path."""
    *parents, last = path.split(".")
    setattr(reduce(getattr, parents, root), last, value)
