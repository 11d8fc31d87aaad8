"""Which tokens stay, and the cut itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from pipelines.config import Vocabulary
from pipelines.errors import ModelError
from pipelines.techniques.vocabulary.roles import configs_of, renumber_roles
from pipelines.techniques.vocabulary.rows import shrink_rows
from pipelines.techniques.vocabulary.state import (
    State,
    every_token,
    fixed_ids,
    pieces_of,
    read_state,
    rebuild,
    renumber,
)


def kept_tokens(
    tokenizer: Any, encoded: Sequence[Sequence[int]], wanted: Vocabulary, always: Collection[int] = ()
) -> list[int]:
    """Ids that stay, in order: frequent ones, the first `keep_first`, `always`, and all that these and the rest need.

    Special and added tokens, single characters and bytes always stay. Raises ModelError for a tokenizer of another kind.
    """
    counts = Counter(token for row in encoded for token in row)
    state = read_state(tokenizer)
    used = {
        index
        for index in every_token(state).values()
        if counts[index] >= wanted.min_count or index < wanted.keep_first or index in always
    }
    return _closed(tokenizer, state, used)


def kept_without(tokenizer: Any, left_out: Collection[int]) -> list[int]:
    """Ids that stay, in order, where some are to leave: all that need not stay beside the others. Raises ModelError as kept_tokens does."""
    state = read_state(tokenizer)
    return _closed(tokenizer, state, set(every_token(state).values()) - set(left_out))


def prune_vocabulary(model: Any, tokenizer: Any, kept: Sequence[int]) -> Any:
    """Shrink the model in place and answer a tokenizer with `kept` tokens alone, renumbered in their order.

    Raises ModelError for a tokenizer of a kind that cannot be pruned, and where a token leaves that another needs.
    """
    smaller = prune_tokenizer(tokenizer, kept)
    renumbered = {old: new for new, old in enumerate(kept)}
    rows = int(model.get_input_embeddings().weight.shape[0])
    renumber_roles(model, renumbered, rows)
    shrink_rows(model, kept)
    for config in configs_of(model):
        if getattr(config, "vocab_size", None) == rows:
            config.vocab_size = len(kept)
    return smaller


def prune_tokenizer(tokenizer: Any, kept: Sequence[int]) -> Any:
    """A tokenizer with `kept` tokens alone, renumbered in their order. Raises ModelError as prune_vocabulary does."""
    state = read_state(tokenizer)
    _refuse_gaps(tokenizer, state, kept)
    renumbered = {old: new for new, old in enumerate(kept)}
    before = every_token(state)
    renumber(state, renumbered)
    smaller = rebuild(tokenizer, state)
    _refuse_other_ids(smaller, {token: renumbered[at] for token, at in before.items() if at in renumbered})
    return smaller


def _closed(tokenizer: Any, state: State, used: set[int]) -> list[int]:
    """`used` and all that must stay beside them, in the order in which a rebuilt tokenizer numbers them."""
    tokens, own = every_token(state), pieces_of(state).tokens()
    stay = used | fixed_ids(tokenizer, state)
    needed = pieces_of(state).needed({token for token, at in own.items() if at in stay})
    ids = {tokens[token] for token in needed} | (stay & set(tokens.values()))
    outside = set(tokens.values()) - set(own.values())
    return sorted(ids, key=lambda at: (at in outside, at))


def _refuse_gaps(tokenizer: Any, state: State, kept: Sequence[int]) -> None:
    missing = set(_closed(tokenizer, state, set(kept))) - set(kept)
    if missing:
        tokens = tokenizer.convert_ids_to_tokens(sorted(missing)[:3])
        raise ModelError(f"{len(missing)} tokens would leave that others need, {tokens} among them; keep them")


def _refuse_other_ids(tokenizer: Any, wanted: dict[str, int]) -> None:
    """Added tokens get their ids from the backend, whatever the state says."""
    found = tokenizer.get_vocab()
    for token, at in wanted.items():
        if found.get(token) != at:
            raise ModelError(
                f"tokenizer.json: the rebuilt tokenizer gives {token!r} the id {found.get(token)}, not {at}"
            )
