"""The shape of a part of an elastic student."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A part of the elastic student: its layers, the first `intermediate_size` FFN columns and heads of each, one of its vocabularies.

    Without layers columns and heads are 0.
    """

    layers: tuple[int, ...]
    intermediate_size: int
    num_attention_heads: int
    vocabulary: int

    def __str__(self) -> str:
        if not self.layers:
            return f"no layers, vocabulary {self.vocabulary}"
        return f"{len(self.layers)} layers, FFN {self.intermediate_size}, {self.num_attention_heads} heads, vocabulary {self.vocabulary}"
