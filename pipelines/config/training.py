"""The one training loop's settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.base import Section


class Training(Section):
    """The one training loop's settings."""

    epochs: int = Field(ge=1, le=1000, description="Most passes over the training text.")
    batch_size: int = Field(ge=1, le=4096, description="Texts a step.")
    learning_rate: float = Field(gt=0, lt=1, description="Peak of the schedule (linear warm-up, then cosine to zero).")
    warmup_ratio: float = Field(ge=0, lt=1, description="Share of the steps that warm up.")
    weight_decay: float = Field(ge=0, lt=1, description="AdamW decay of matrices; vectors and embeddings are spared.")
    max_grad_norm: float = Field(gt=0, description="Gradient norm above which gradients are scaled down.")
    patience: int = Field(
        ge=1, description="Epochs without a better validation loss before training stops; the best epoch is kept."
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        description="Arithmetic of the forward pass. auto: bf16 where the processor has bf16 instructions, else fp32."
    )
