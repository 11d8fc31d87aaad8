"""The rewritten tokenizer held against the old one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.errors import ModelError


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
