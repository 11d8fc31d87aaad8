"""Token ids in a model's configs: what begins, ends, pads, is forced or forbidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.errors import ModelError

#: Ids, or phrases of ids, that generation must make.
FORCED = frozenset({"force_words_ids"})

#: Ids, or phrases of ids, that generation avoids or weighs: without its tokens a phrase cannot come, so it may go.
AVOIDED = frozenset({"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias"})

Ids = int | list[Any]


def ids_in_use(model: Any) -> set[int]:
    """Ids that the model's configs name and generation needs; they must stay in the vocabulary."""
    rows = model.get_input_embeddings().weight.shape[0]
    return {
        index
        for config in configs_of(model)
        for _, value in _needed(config)
        for index in _flat(value)
        if 0 <= index < rows
    }


def renumber_roles(model: Any, kept: Mapping[int, int], rows: int) -> None:
    """Change the ids in every config of the model, in place; `rows` is the number of embedding rows before.

    An id below zero or beyond the rows names no token and stays as it is. Raises ModelError where a needed token leaves.
    """
    for config in configs_of(model):
        for name, value in list(_needed(config)):
            setattr(config, name, _map(value, _needs(type(config).__name__, name, kept, rows)))
        for name in AVOIDED & vars(config).keys():
            if getattr(config, name):
                setattr(config, name, _without_gone(getattr(config, name), kept))


def configs_of(model: Any) -> list[Any]:
    """The model's config, those of its parts where they are copies, and the one of generation."""
    found = [getattr(module, "config", None) for module in model.modules()]
    found += [model.config.get_text_config(), getattr(model, "generation_config", None)]
    return list({id(config): config for config in found if hasattr(config, "to_dict")}.values())


def _needed(config: Any) -> Iterator[tuple[str, Ids]]:
    for name, value in vars(config).items():
        named = name.endswith(("_token_id", "_token_ids")) or name in FORCED
        if named and isinstance(value, int | list | tuple):
            yield name, list(value) if isinstance(value, tuple) else value


def _flat(value: Ids) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    else:
        for inner in value:
            yield from _flat(inner)


def _map(value: Ids, change: Callable[[int], int]) -> Ids:
    return change(value) if isinstance(value, int) else [_map(inner, change) for inner in value]


def _needs(owner: str, name: str, kept: Mapping[int, int], rows: int) -> Callable[[int], int]:
    def change(index: int) -> int:
        if not 0 <= index < rows:
            return index
        if index not in kept:
            raise ModelError(
                f"{owner}.{name} is {index}, which has no token in the pruned vocabulary; "
                "correct the config, or keep that token"
            )
        return kept[index]

    return change


def _without_gone(value: Any, kept: Mapping[int, int]) -> Any:
    """Ids, phrases, or phrases with a weight, all of whose tokens stay, renumbered; null where none is left."""
    if isinstance(value, dict):
        left: Any = {
            tuple(kept[at] for at in key): bias for key, bias in value.items() if all(at in kept for at in key)
        }
    elif isinstance(value[0], int):
        left = [kept[at] for at in value if at in kept]
    elif isinstance(value[0][0], list | tuple):
        left = [[[kept[at] for at in ids], bias] for ids, bias in value if all(at in kept for at in ids)]
    else:
        left = [[kept[at] for at in ids] for ids in value if all(at in kept for at in ids)]
    return left or None
