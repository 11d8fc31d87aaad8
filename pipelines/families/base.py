"""What differs between kinds of models. Techniques take a Family and never ask which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pipelines.bundle import Bundle
from pipelines.config import StudentLayers, StudentPretrained, StudentRandom, StudentStatic

#: Token ids of one text, special tokens included.
TokenIds = list[int]


@dataclass(frozen=True)
class Outputs:
    """One forward pass over B texts padded to T tokens.

    logits [N, C] with one row a prediction; hidden {layer: [B, T, H]}; relations: queries, keys, values [B, T, H] of the
    last layer, or empty; mask [B, T], true on real tokens.
    """

    logits: Tensor
    hidden: dict[int, Tensor]
    relations: tuple[Tensor, ...]
    mask: Tensor


@dataclass(frozen=True)
class LayerUnits:
    """The matrices of one layer that structured pruning may narrow.

    `ffn_up` are all [width, hidden], `ffn_down` is [hidden, width]; `queries`, `keys`, `values` are [heads * size, hidden],
    `attention_out` is [hidden, heads * size].
    """

    ffn_up: tuple[nn.Linear, ...]
    ffn_down: nn.Linear
    queries: nn.Linear
    keys: nn.Linear
    values: nn.Linear
    attention_out: nn.Linear
    head_size: int


class Family(Protocol):
    """The seam. One instance a task; see families/__init__.py."""

    def load(self, folder: Path) -> Bundle:
        """Load a bundle that the factory saved. Raises ModelError."""

    def load_ready(self, folder: Path, labels: Sequence[str]) -> Bundle:
        """Load somebody's finished classifier; ModelError unless its labels are the data's."""

    def load_pretrained(self, folder: Path, labels: Sequence[str]) -> Bundle:
        """Load a pretrained body with a fresh head for these labels. Raises ModelError."""

    def save(self, bundle: Bundle, out: Path) -> None:
        """Write a bundle that plain transformers loads."""

    def student(self, teacher: Bundle, choice: StudentLayers | StudentRandom | StudentStatic) -> Bundle:
        """A student of the teacher's architecture, or one without layers."""

    def adopt(self, teacher: Bundle, choice: StudentPretrained, folder: Path) -> Bundle:
        """A smaller pretrained model as a student of the teacher."""

    def encode(self, tokenizer: Any, texts: Sequence[str], max_length: int) -> list[TokenIds]:
        """Token ids of each text, cut at max_length."""

    def collate(self, tokenizer: Any, rows: Sequence[TokenIds]) -> dict[str, Tensor]:
        """Pad rows to one batch of model inputs."""

    def forward(
        self, model: Any, inputs: dict[str, Tensor], hidden: Sequence[int] = (), relations: bool = False
    ) -> Outputs:
        """Logits, and where asked hidden states of layers and relations of the last one."""

    def teacher_layers(self, model: Any) -> list[int | None]:
        """For each layer of a student the teacher's layer that it answers to."""

    def depth(self, model: Any) -> int:
        """Number of layers."""

    def units(self, model: Any) -> list[LayerUnits]:
        """The prunable units of each layer; ModelError where the architecture forbids narrowing."""

    def drop_layers(self, model: Any, keep: Sequence[int]) -> None:
        """Keep only these layers, in order."""

    def narrowed(self, model: Any, pruned_heads: dict[int, list[int]]) -> None:
        """Bring the config in line with narrowed units; pruned_heads counts in the present heads of each layer."""

    def trim_positions(self, model: Any, max_length: int) -> None:
        """Drop what the model knows of positions that no text of max_length tokens reaches."""

    def calibrate(self, model: Any, temperature: float, biases: Tensor) -> None:
        """Make logits what they are now over a temperature plus biases [C], inside the head's weights."""

    def export_module(self, model: Any) -> nn.Module:
        """A module that takes input_ids and attention_mask [B, T] int64 and answers logits; the export traces it."""

    def export_texts(self) -> Sequence[str]:
        """Texts of different length for the trace: from an unpadded sample the mask would leave the graph."""
