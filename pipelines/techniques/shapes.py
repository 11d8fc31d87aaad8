"""The shape of a part of an elastic student."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A part of the elastic student: its layers, the first `intermediate_size` FFN columns and heads of each, one of its vocabularies.

    Without layers columns and heads are 0; and beside layers, where all of them stay.
    """

    layers: tuple[int, ...]
    intermediate_size: int
    num_attention_heads: int
    vocabulary: int

    @property
    def shape(self) -> str:
        """All but the vocabulary, as people read it."""
        depth = len(self.layers)
        told = f"{depth} layer{'s' if depth > 1 else ''}" if depth else "no layers"
        told += f", FFN {self.intermediate_size}" if self.intermediate_size else ""
        return told + (f", {self.num_attention_heads} heads" if self.num_attention_heads else "")

    def __str__(self) -> str:
        return f"{self.shape}, vocabulary {self.vocabulary}"
