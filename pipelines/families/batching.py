"""What the families that answer token by token share: padding examples to a batch, and letting a model write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import OnPolicy, TeacherTexts
from pipelines.families.base import TokenIds
from pipelines.families.sequences import Batch, Example

#: The exported file of a model that is one graph.
MODEL_FILE = "model.onnx"
#: Parity is checked on so many prompts of up to so many tokens, and over as many new ones; fewer where texts are shorter.
PARITY_PROMPTS, PARITY_TOKENS = 4, 16
#: Prompts that are answered side by side.
WRITE_BATCH = 32


def padded(rows: Sequence[TokenIds], pad: int, side: Literal["left", "right"] = "right") -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T] int64 of rows of unlike length; the mask is 0 on padding."""
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    if side == "left":
        ids = [[pad] * gap + row for gap, row in zip(gaps, rows, strict=True)]
        mask = [[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    else:
        ids = [row + [pad] * gap for gap, row in zip(gaps, rows, strict=True)]
        mask = [[1] * len(row) + [0] * gap for gap, row in zip(gaps, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def batch_of_ids(bundle: Bundle, examples: Sequence[Example]) -> Batch:
    """A batch of models that read nothing but the examples' ids."""
    ids, mask = padded([list(example.ids) for example in examples], bundle.tokenizer.pad_token_id)
    return batch_of({"input_ids": ids, "attention_mask": mask}, examples)


def batch_of(inputs: dict[str, Tensor], examples: Sequence[Example]) -> Batch:
    """Inputs with the places and classes of the examples' predictions."""
    counts = torch.tensor([len(example.classes) for example in examples])
    return Batch(
        inputs,
        torch.arange(len(examples)).repeat_interleave(counts),
        torch.tensor([place for example in examples for place in example.places]),
        torch.tensor([one for example in examples for one in example.classes]),
    )


def written(
    bundle: Bundle, inputs: tuple[Tensor, Tensor], how: TeacherTexts | OnPolicy, skip: int, **more: Any
) -> list[TokenIds]:
    """What a model writes for ids and mask [B, T]: of each row what follows its first `skip` tokens, its end included.

    At temperature 0 the likeliest token each time; else draws from the whole distribution.
    """
    ends = ends_of(bundle)
    sampling = {"do_sample": True, "temperature": how.temperature, "top_k": 0} if how.temperature > 0 else {}
    was_training = bundle.model.training
    bundle.model.eval()
    with torch.inference_mode():
        answers = bundle.model.generate(
            input_ids=inputs[0],
            attention_mask=inputs[1],
            max_new_tokens=how.max_new_tokens,
            pad_token_id=bundle.tokenizer.pad_token_id,
            eos_token_id=ends,
            **({"do_sample": False, "num_beams": 1} | sampling | more),
        )
    bundle.model.train(was_training)
    rows: list[TokenIds] = answers[:, skip:].tolist()
    return [_until(row, ends) for row in rows]


def ends_of(bundle: Bundle) -> list[int]:
    """The tokens that end what a model writes: the tokenizer's, and those that the model itself names beside it."""
    named = getattr(getattr(bundle.model, "generation_config", None), "eos_token_id", None)
    more = named if isinstance(named, list) else [named]
    return sorted({end for end in [bundle.tokenizer.eos_token_id, *more] if end is not None})


def _until(row: TokenIds, ends: Sequence[int]) -> TokenIds:
    """A row up to its first end, which stays."""
    return next((row[: at + 1] for at, token in enumerate(row) if token in ends), row)
