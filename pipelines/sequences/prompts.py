"""What the sides of an evaluation are asked to write, and what truly stands there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.config import Task, TokenEvaluate
from pipelines.data.clean import Split
from pipelines.errors import DataError
from pipelines.techniques.span_metrics import told_spans


@dataclass(frozen=True)
class Asked:
    """Prompts, what truly follows or answers each, and which test row it is from."""

    prompts: list[str]
    references: list[str]
    rows: list[int]


#: (test split, settings, tokenizer that tokens are counted in) -> what is asked.
Asker = Callable[[Split, TokenEvaluate, Any], Asked]


def asked_of(task: Task, test: Split, settings: TokenEvaluate, tokenizer: Any) -> Asked:
    """`evaluate.rows` test rows, evenly spread. Raises DataError where no row is long enough to be continued."""
    askers: dict[str, Asker] = {
        "text-generation": continuations,
        "text-to-text": answers,
        "token-classification": taggings,
    }
    return askers[task.type](test, settings, tokenizer)


def continuations(test: Split, settings: TokenEvaluate, tokenizer: Any) -> Asked:
    """Texts cut after `prompt_tokens` tokens, and as much of what follows as may be written."""
    encoded = tokenizer(test.texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    long = [row for row, offsets in enumerate(encoded) if len(offsets) > settings.prompt_tokens]
    if not long:
        raise DataError(
            f"evaluate.prompt_tokens is {settings.prompt_tokens}, but the longest test text has "
            f"{max(map(len, encoded), default=0)} tokens: none can be continued; lower it"
        )
    rows = [long[at] for at in spread(len(long), settings.rows)]
    prompts, references = [], []
    for row in rows:
        ends = [end for _, end in encoded[row]]
        cut = ends[settings.prompt_tokens - 1]
        prompts.append(test.texts[row][:cut])
        references.append(test.texts[row][cut : ends[settings.prompt_tokens - 1 :][: settings.new_tokens + 1][-1]])
    return Asked(prompts, references, rows)


def prompts_of(texts: Sequence[str], prompt_tokens: int, tokenizer: Any) -> list[str]:
    """Texts cut after so many tokens. Raises DataError where none is longer."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = [
        text[: offsets[prompt_tokens - 1][1]]
        for text, offsets in zip(texts, encoded, strict=True)
        if len(offsets) > prompt_tokens
    ]
    if not found:
        raise DataError(
            f"explore.prompt_tokens is {prompt_tokens}, but the longest validation text has "
            f"{max(map(len, encoded), default=0)} tokens: none can be continued; lower it"
        )
    return found


def answers(test: Split, settings: TokenEvaluate, tokenizer: Any) -> Asked:
    """Texts and their targets."""
    rows = spread(len(test.texts), settings.rows)
    return Asked([test.texts[row] for row in rows], [test.targets[row] for row in rows], rows)


def taggings(test: Split, settings: TokenEvaluate, tokenizer: Any) -> Asked:
    """Texts and the spans in them."""
    rows = spread(len(test.texts), settings.rows)
    texts = [test.texts[row] for row in rows]
    return Asked(
        texts, [told_spans(text, test.targets[row].split()) for text, row in zip(texts, rows, strict=True)], rows
    )


def spread(total: int, wanted: int) -> list[int]:
    """Places of `wanted` things of `total`, evenly spread, in order; all where there are no more."""
    return [int(at) for at in np.unique(np.linspace(0, total - 1, min(wanted, total)).round().astype(int))]
