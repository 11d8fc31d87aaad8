"""The sizes of a pretrained encoder, which those of its students follow from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier


@dataclass(frozen=True)
class Sizes:
    """An encoder's sizes; FFN width and heads are None where its architecture or checkpoint has none that can be cut."""

    parameters: int
    depth: int
    hidden_size: int
    intermediate_size: int | None
    num_attention_heads: int | None


def sizes_of(folder: Path) -> Sizes:
    """Load a folder as the teacher of a classifier is loaded, and look. Raises ModelError where it cannot be one."""
    family = EncoderClassifier()
    model = family.load_pretrained(folder, ["one", "other"]).model
    parameters = sum(weights.numel() for weights in model.base_model.parameters())
    width = heads = None
    try:
        first = family.units(model)[0]
        width, heads = first.ffn_down.in_features, first.queries.out_features // first.head_size
    except ModelError:
        pass  # as prune says of it too: depth and vocabulary alone
    return Sizes(parameters, family.depth(model), model.config.hidden_size, width, heads)
