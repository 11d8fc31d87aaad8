"""The forms in which an exported file's weights can be: what a recipe's `quantize`, and each quantization of a search, says of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.base import Fraction, Section

Bits = Literal[4, 8]


class FloatForm(Section):
    """float32."""

    technique: Literal["none"] = Field(description="Export only.")


class TableBlocks(Section):
    """Embeddings in blocks of 4 bits: of a large vocabulary they are most of the bytes and none of the time."""

    bits: Literal[4] = Field(description="Bits of a weight.")
    block_size: Literal[16, 32, 64, 128] = Field(description="Weights of a row that share a scale.")


class DynamicForm(Section):
    """Weights int8, activations quantized at run time."""

    technique: Literal["dynamic_int8"] = Field(description="int8 weights, scales of activations found at run time.")
    per_channel: bool = Field(description="A scale for each output column instead of each matrix.")
    embeddings: TableBlocks | None = Field(description="Embeddings in fewer bits than the rest; null: int8 too.")


class StaticForm(Section):
    """Weights and activations int8 with scales fixed on calibration text."""

    technique: Literal["static_int8"] = Field(description="int8 weights and activations, scales fixed beforehand.")
    per_channel: bool = Field(description="A scale for each output column instead of each matrix.")
    calibration_rows: int = Field(ge=1, description="Training texts that fix the scales.")


class InBlocks(Section):
    """Integer weights in blocks, activations float: what every such form says."""

    technique: Literal["blockwise", "mixed"] = Field(description="Which of these forms it is.")
    block_size: Literal[16, 32, 64, 128] = Field(description="Weights that share a scale.")
    symmetric: bool = Field(description="Without zero points.")
    accuracy_level: Literal[0, 4] = Field(description="4: products in int8; 0: in float32.")
    rounding: Literal["nearest", "gptq"] = Field(
        description="nearest; or GPTQ (Frantar et al. 2023): each column's error is made good by the next ones."
    )
    calibration_rows: int = Field(ge=1, description="Examples that GPTQ reads; rounding to the nearest reads none.")

    @model_validator(mode="after")
    def _eight_bits_in_integers(self) -> Self:
        if 8 in self._bits_of_products() and self.accuracy_level == 0:
            raise ValueError(
                "8-bit blocks with accuracy_level 0 are slower than float32 (measured 0.6 times); use accuracy_level 4"
            )
        return self

    @abstractmethod
    def _bits_of_products(self) -> tuple[Bits, ...]:
        """What bits a matrix may have that inputs are multiplied with."""


class BlockwiseForm(InBlocks):
    """Weights of 4 or 8 bits in blocks, activations float."""

    technique: Literal["blockwise"] = Field(
        description="Weights alone, in blocks (MatMulNBits); every matrix must convert."
    )
    bits: Bits = Field(description="Bits of a weight.")
    head_bits: Bits = Field(description="Bits of a weight of the output head.")
    embedding_bits: Bits | None = Field(
        description="Bits of the embedding; tied to a head of the same bits it is stored once; null: float32."
    )

    def _bits_of_products(self) -> tuple[Bits, ...]:
        return self.bits, self.head_bits


class MixedForm(InBlocks):
    """Weights of 4 bits in blocks, of 8 where 4 cost the answer most."""

    technique: Literal["mixed"] = Field(
        description="As blockwise, but each matrix, head and embeddings among them, has 4 or 8 bits: by how far 4 bits in it alone move the answer (KL on training examples) for each byte they save."
    )
    share_high: Fraction = Field(
        description="Largest share of the weights that has 8 bits; what moves the answer most comes first."
    )
    calibration_rows: int = Field(ge=1, description="Examples on which the KL is measured; GPTQ reads the same.")

    def _bits_of_products(self) -> tuple[Bits, ...]:
        return 4, 8


Form = Annotated[FloatForm | DynamicForm | StaticForm | BlockwiseForm | MixedForm, Field(discriminator="technique")]

#: What models that answer token by token can be in.
TokenForm = Annotated[FloatForm | DynamicForm | BlockwiseForm | MixedForm, Field(discriminator="technique")]
