"""A tokenizer as the JSON of its backend: reading it, renumbering what stands around the model, building it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.errors import ModelError
from pipelines.techniques.vocabulary.bpe import Bpe
from pipelines.techniques.vocabulary.pieces import Pieces
from pipelines.techniques.vocabulary.unigram import Unigram
from pipelines.techniques.vocabulary.wordpiece import WordPiece

State = dict[str, Any]

#: By the tokenizer's own model.type.
MODELS: dict[str, type[Pieces]] = {"BPE": Bpe, "Unigram": Unigram, "WordPiece": WordPiece}

#: Settings that a rebuilt tokenizer takes over where the old one differs from the default.
SETTINGS: Mapping[str, Any] = {
    "chat_template": None,
    "clean_up_tokenization_spaces": False,
    "extra_special_tokens": [],
    "split_special_tokens": False,
    "truncation_side": "right",
    "add_prefix_space": False,
}


def read_state(tokenizer: Any) -> State:
    """The backend's JSON."""
    state: State = json.loads(tokenizer.backend_tokenizer.to_str())
    return state


def pieces_of(state: State) -> Pieces:
    """The tokenizer's model; ModelError where its kind cannot be pruned."""
    kind = state["model"]["type"]
    if kind not in MODELS:
        raise ModelError(
            f"a {kind} vocabulary cannot be pruned; set prune.vocabulary and every vocabulary_folds to null"
        )
    return MODELS[kind](state["model"])


def every_token(state: State) -> dict[str, int]:
    """Id of each token, added ones included; the model's own come first, as a rebuilt tokenizer numbers them."""
    added = sorted(state["added_tokens"], key=lambda entry: entry["id"])
    return pieces_of(state).tokens() | {entry["content"]: entry["id"] for entry in added}


def fixed_ids(tokenizer: Any, state: State) -> set[int]:
    """Ids that stay whatever their use: added and special tokens, what post-processors add, what padding fills in."""
    ids = {entry["id"] for entry in state["added_tokens"]} | set(tokenizer.all_special_ids)
    if state.get("padding"):
        ids.add(state["padding"]["pad_id"])
    for processor in _processors(state.get("post_processor")):
        ids.update(index for entry in processor.get("special_tokens", {}).values() for index in entry["ids"])
        ids.update(processor[name][1] for name in ("sep", "cls") if name in processor)
    return ids


def renumber(state: State, renumbered: Mapping[int, int]) -> None:
    """Change every id in the state, in place."""
    state["model"] = pieces_of(state).cut(renumbered)
    state["added_tokens"] = [entry | {"id": renumbered[entry["id"]]} for entry in state["added_tokens"]]
    if state.get("padding"):
        state["padding"]["pad_id"] = renumbered[state["padding"]["pad_id"]]
    for processor in _processors(state.get("post_processor")):
        for entry in processor.get("special_tokens", {}).values():
            entry["ids"] = [renumbered[index] for index in entry["ids"]]
        for name in ("sep", "cls"):
            if name in processor:
                processor[name][1] = renumbered[processor[name][1]]


def _processors(processor: Any) -> Iterator[Any]:
    """The post-processors that stand in a state, those inside sequences included."""
    if processor:
        yield processor
        for inner in processor.get("processors", ()):
            yield from _processors(inner)


def rebuild(tokenizer: Any, state: State) -> Any:
    """A tokenizer over the edited state with the old one's settings.

    Its class is the general one: classes of single models build their own backend, with normalizers and ids of their own.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = {name: getattr(tokenizer, name, default) for name, default in SETTINGS.items()}
    rebuilt = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        **{name: value for name, value in settings.items() if value != SETTINGS[name]},
        **tokenizer.special_tokens_map,
    )
    # The setters would write a post-processor of their own over the one in the state, which does what these say.
    rebuilt._add_bos_token, rebuilt._add_eos_token = tokenizer.add_bos_token, tokenizer.add_eos_token
    return rebuilt
