"""Vocabulary pruning: tokens that the domain never uses leave the tokenizer and the embedding."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipelines.config import Vocabulary
from pipelines.errors import ModelError


def kept_tokens(tokenizer: Any, encoded: Sequence[Sequence[int]], wanted: Vocabulary) -> list[int]:
    """Ids that stay, in order: frequent ones, the first `keep_first`, special tokens, single characters."""
    counts = Counter(token for row in encoded for token in row)
    state = _state(tokenizer)
    added = {entry["id"] for entry in state["added_tokens"]}
    prefix = state["model"]["continuing_subword_prefix"]
    vocabulary: dict[str, int] = state["model"]["vocab"]
    return sorted(
        index
        for token, index in vocabulary.items()
        if counts[index] >= wanted.min_count
        or index < wanted.keep_first
        or index in added
        or len(token.removeprefix(prefix)) == 1
    )


def prune_vocabulary(model: Any, tokenizer: Any, kept: Sequence[int]) -> Any:
    """Shrink the model's embedding in place and answer a tokenizer with `kept` tokens alone, renumbered in their order.

    Raises ModelError for a tokenizer that is not WordPiece.
    """
    state = _state(tokenizer)
    renumbered = {old: new for new, old in enumerate(kept)}
    state["model"]["vocab"] = {
        token: renumbered[index] for token, index in state["model"]["vocab"].items() if index in renumbered
    }
    state["added_tokens"] = [entry | {"id": renumbered[entry["id"]]} for entry in state["added_tokens"]]
    _renumber_template(state.get("post_processor"), renumbered)
    if state.get("padding"):
        state["padding"]["pad_id"] = renumbered[state["padding"]["pad_id"]]
    _shrink_embedding(model, kept)
    smaller = _rebuild(tokenizer, state)
    model.config.vocab_size = len(kept)
    model.config.pad_token_id = smaller.pad_token_id
    return smaller


def check_vocabulary(before: Any, after: Any, kept: Sequence[int], texts: Sequence[str]) -> None:
    """Hold the rewritten tokenizer against the old one; ModelError where they disagree.

    A text whose tokens all stayed must be cut the same way; special tokens must keep their meaning.
    """
    if before.all_special_tokens != after.all_special_tokens:
        raise ModelError(
            f"vocabulary pruning changed the special tokens from {before.all_special_tokens} to {after.all_special_tokens}"
        )
    stayed = set(kept)
    old, new = before(list(texts))["input_ids"], after(list(texts))["input_ids"]
    for text, ours, theirs in zip(texts, new, old, strict=True):
        if set(theirs) <= stayed and [kept[token] for token in ours] != theirs:
            raise ModelError(f"vocabulary pruning changed the tokens of {text[:60]!r} although all of them stayed")


def _state(tokenizer: Any) -> Any:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "WordPiece":
        raise ModelError(f"a {state['model']['type']} vocabulary cannot be pruned yet; set prune.vocabulary to null")
    return state


def _renumber_template(processor: Any, renumbered: dict[int, int]) -> None:
    """Ids inside the post-processor that adds the special tokens."""
    if not processor:
        return
    for entry in processor.get("special_tokens", {}).values():
        entry["ids"] = [renumbered[index] for index in entry["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name][1] = renumbered[processor[name][1]]


def _shrink_embedding(model: Any, kept: Sequence[int]) -> None:
    full: nn.Embedding = model.get_input_embeddings()
    padding = None if full.padding_idx is None else list(kept).index(full.padding_idx)
    small = nn.Embedding(len(kept), full.embedding_dim, padding_idx=padding)
    small.weight.data.copy_(full.weight.data[torch.as_tensor(kept)])
    model.set_input_embeddings(small)


def _rebuild(tokenizer: Any, state: Any) -> Any:
    """A fast tokenizer of the same class settings over the edited state."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        **special,
    )
