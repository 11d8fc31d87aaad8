"""Tiny generators in memory and their logits, for tests of what changes a model's shape."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.tiny_generators import CAUSAL, SEQ2SEQ, causal_config, seq2seq_config

ARCHITECTURES = (*CAUSAL, *SEQ2SEQ)


@cache
def _config(kind: str) -> Any:
    return causal_config(kind) if kind in CAUSAL else seq2seq_config(kind)


def generator(kind: str, **changes: Any) -> Any:
    """A random model of an architecture, its vectors random too, in float32 and evaluation mode."""
    auto = hf.AutoModelForCausalLM if kind in CAUSAL else hf.AutoModelForSeq2SeqLM
    torch.manual_seed(0)
    config = type(_config(kind))(**(_config(kind).to_dict() | changes))
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


def tokens(model: Any, rows: int = 3, length: int = 20, seed: int = 0) -> Tensor:
    """Random ids, longer than a sliding window of the tiny models."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(2, model.config.vocab_size, (rows, length), generator=source)


def inputs(model: Any, seed: int = 0) -> dict[str, Tensor]:
    """What a forward pass takes."""
    ids = tokens(model, seed=seed)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return given | ({"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {})


def logits(model: Any) -> Tensor:
    """Logits of fixed random text."""
    with torch.no_grad():
        result: Tensor = model(**inputs(model), use_cache=False).logits
    return result


def difference(first: Any, second: Any) -> float:
    """Largest difference of the logits of two models, as a share of the largest logit."""
    left, right = logits(first), logits(second)
    return float((left - right).abs().max() / left.abs().max())
