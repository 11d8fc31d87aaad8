"""The model's rows of the vocabulary: input embeddings, output head and what is tied to either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError

#: Buffers [1, tokens] that are added to the logits (BART).
BIASES = ("final_logits_bias",)


def shrink_rows(model: Any, kept: Sequence[int]) -> None:
    """Keep these rows, in their order, in every tensor that has a row for each token; in place, ties stay ties.

    Raises ModelError where a token has no row, an encoder and its decoder have vocabularies of different size, or
    positions are counted from the padding token's id (RoBERTa) and that would move.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if max(kept) >= rows:
        raise ModelError(f"the tokenizer has a token of id {max(kept)}, the model {rows} embedding rows; resize them")
    renumbered = {old: new for new, old in enumerate(kept)}
    whole = _tensors(model)  # Held to the end: they are known by their ids.
    smaller = _smaller(whole, kept, rows)
    _refuse_moved_positions(model, smaller, renumbered)
    for module in model.modules():
        _replace(module, smaller)
        _count_again(module, smaller, renumbered, rows)
    for name in BIASES:
        if (bias := getattr(model, name, None)) is not None:
            setattr(model, name, nn.Buffer(bias[:, torch.as_tensor(kept, device=bias.device)].clone()))


def _tensors(model: Any) -> list[nn.Parameter]:
    """Parameters with a row for each token, ties counted as often as they are named."""
    parts = [model]
    if getattr(model.config, "is_encoder_decoder", False):
        parts += [model.get_encoder(), model.get_decoder()]
    found = [part.get_input_embeddings().weight for part in parts]
    head = model.get_output_embeddings()
    if head is not None:
        found += [head.weight, *([head.bias] if getattr(head, "bias", None) is not None else [])]
    return found


def _smaller(tensors: Sequence[nn.Parameter], kept: Sequence[int], rows: int) -> dict[int, nn.Parameter]:
    """By id of the old parameter, the new one."""
    odd = [tuple(tensor.shape) for tensor in tensors if tensor.shape[0] != rows]
    if odd:
        raise ModelError(
            f"the model embeds {rows} tokens, but has a vocabulary tensor {odd[0]}; set prune.vocabulary to null"
        )
    return {
        id(old): nn.Parameter(
            old.detach()[torch.as_tensor(kept, device=old.device)].clone(), requires_grad=old.requires_grad
        )
        for old in {id(tensor): tensor for tensor in tensors}.values()
    }


def _replace(module: nn.Module, smaller: Mapping[int, nn.Parameter]) -> None:
    for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
        if id(weight) in smaller:
            setattr(module, name, smaller[id(weight)])


def _count_again(module: Any, smaller: Mapping[int, nn.Parameter], renumbered: Mapping[int, int], rows: int) -> None:
    """Bring the numbers that a module holds of its vocabulary in line."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and any(weight is new for new in smaller.values()):
        for name in ("num_embeddings", "out_features"):
            if name in vars(module):
                setattr(module, name, len(renumbered))
    if vars(module).get("vocab_size") == rows:
        module.vocab_size = len(renumbered)
    if vars(module).get("padding_idx") is not None and not _is_position_table(module, smaller):
        module.padding_idx = renumbered.get(module.padding_idx)


def _is_position_table(module: Any, smaller: Mapping[int, nn.Parameter]) -> bool:
    return isinstance(module, nn.Embedding) and not any(
        module.weight is tensor or id(module.weight) == old for old, tensor in smaller.items()
    )


def _refuse_moved_positions(model: Any, smaller: Mapping[int, nn.Parameter], renumbered: Mapping[int, int]) -> None:
    for name, module in model.named_modules():
        if not _is_position_table(module, smaller) or module.padding_idx is None:
            continue
        old, new = module.padding_idx, renumbered.get(module.padding_idx)
        if new != old:
            raise ModelError(
                f"{name}: positions are counted from the padding token's id {old}, which would move to {new}; "
                f"raise prune.vocabulary.keep_first above {old}"
            )
