"""A model's answers to many texts, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipelines.families.base import Family, TokenIds
from pipelines.techniques.course import Score
from pipelines.techniques.losses import cross_entropy

#: Texts a forward pass while scoring.
SCORE_BATCH = 128


def predict_logits(family: Family, model: Any, tokenizer: Any, encoded: Sequence[TokenIds]) -> Tensor:
    """Logits [N, C] of encoded texts in their order, the model in evaluation mode."""
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), SCORE_BATCH):
            inputs = family.collate(tokenizer, [encoded[index] for index in order[start : start + SCORE_BATCH]])
            parts.append(family.forward(model, inputs).logits.float())
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


def score(family: Family, model: Any, tokenizer: Any, encoded: Sequence[TokenIds], labels: Sequence[int]) -> Score:
    """Accuracy and mean cross-entropy on labelled texts."""
    logits, truth = predict_logits(family, model, tokenizer, encoded), torch.tensor(labels)
    return Score(float((logits.argmax(-1) == truth).float().mean()), float(cross_entropy(logits, truth)))
