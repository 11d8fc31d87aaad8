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
