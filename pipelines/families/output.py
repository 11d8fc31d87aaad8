"""Features and head of any generator: what its base model gives, and what turns that into the model's own logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import ModelError

#: Tokens of the probe, and how far its logits may be from the model's own.
PROBE_TOKENS, TOLERANCE = 5, 1e-4


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """What turns the base model's last hidden states [n, H] into the model's logits [n, V]."""
    config = model.config.get_text_config()
    output = model.get_output_embeddings()
    cap = getattr(config, "final_logit_softcapping", None)
    bias = getattr(model, "final_logits_bias", None)
    scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0

    def head(features: Tensor) -> Tensor:
        logits: Tensor = output(features * scale if scale != 1.0 else features)
        if bias is not None:
            logits = logits + bias[0]
        return cap * torch.tanh(logits / cap) if cap else logits

    return head


def check_head(model: Any, inputs: dict[str, Tensor], states: Callable[[dict[str, Tensor]], Tensor]) -> None:
    """Hold head(states) against the model's own logits on one probe.

    Raises ModelError where they differ: then the architecture does something to its logits that the factory does not know.
    """
    with torch.inference_mode():
        expected = model(**inputs).logits.float()
        found = head_of(model)(states(inputs)).float()
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * (1 + float(expected.abs().max())):
        raise ModelError(
            f"architecture {model.config.model_type!r}: its logits are not its output matrix times its last states (they differ by "
            f"{difference:.2e}), so the factory cannot train it; take another architecture"
        )
