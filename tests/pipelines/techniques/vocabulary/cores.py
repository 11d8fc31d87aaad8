"""Cutting a bare backend tokenizer, and what must hold of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer

from pipelines.techniques.vocabulary.state import pieces_of, renumber


def cut(core: Any, wanted: Collection[str]) -> tuple[Any, list[int]]:
    """The core with these tokens, the added ones and what they need, and the ids that stayed."""
    state = json.loads(core.to_str())
    tokens, added = pieces_of(state).tokens(), [entry["content"] for entry in state["added_tokens"]]
    kept = sorted(tokens[token] for token in pieces_of(state).needed({*wanted, *added}))
    renumber(state, {old: new for new, old in enumerate(kept)})
    return Tokenizer.from_str(json.dumps(state)), kept


def agrees(old: Any, new: Any, kept: list[int], text: str) -> bool:
    """True where all tokens of the text stayed. Asserts that it is then cut the same way, and in any case without more loss."""
    before, after = old.encode(text).ids, new.encode(text).ids
    if old.decode(before) == text:
        assert new.decode(after) == text
    if not set(before) <= set(kept):
        return False
    assert [kept[index] for index in after] == before
    return True
