from __future__ import annotations

import pytest

from pipelines.data.clean import Split
from pipelines.errors import DataError
from pipelines.sequences.prompts import asked_of, prompts_of, spread
from tests.sequence_bundles import SETTINGS, TASKS, split_of
from tests.tiny_generators import LINES, bpe_tokenizer

CONTINUE = TASKS["text-generation"]


def test_a_prompt_and_its_reference_are_the_text_in_two_parts() -> None:
    tokenizer = bpe_tokenizer()
    asked = asked_of(CONTINUE, split_of(CONTINUE), SETTINGS, tokenizer)
    assert len(asked.prompts) == SETTINGS.rows
    for prompt, reference, row in zip(asked.prompts, asked.references, asked.rows, strict=True):
        assert LINES[row].startswith(prompt + reference)
        assert len(tokenizer(prompt)["input_ids"]) == SETTINGS.prompt_tokens
        left = len(tokenizer(LINES[row])["input_ids"]) - SETTINGS.prompt_tokens
        assert len(tokenizer(reference)["input_ids"]) == min(SETTINGS.new_tokens, left)


def test_a_text_too_short_to_be_continued_is_not_asked() -> None:
    asked = asked_of(CONTINUE, Split(["a", *LINES, "b"]), SETTINGS, bpe_tokenizer())
    assert 0 not in asked.rows
    with pytest.raises(DataError, match=r"evaluate\.prompt_tokens is 4, but the longest test text has 1 tokens"):
        asked_of(CONTINUE, Split(["a", "b"]), SETTINGS, bpe_tokenizer())


def test_texts_are_cut_to_their_first_tokens_and_short_ones_left_out() -> None:
    tokenizer = bpe_tokenizer()
    found = prompts_of(["a", *LINES], 4, tokenizer)
    long = [line for line in LINES if len(tokenizer(line)["input_ids"]) > 4]
    assert len(found) == len(long) and all(text.startswith(prompt) for prompt, text in zip(found, long, strict=True))
    assert {len(tokenizer(prompt)["input_ids"]) for prompt in found} == {4}
    with pytest.raises(DataError, match=r"explore\.prompt_tokens is 40, but the longest validation text has 3"):
        prompts_of(LINES, 40, tokenizer)


def test_answers_are_asked_whole() -> None:
    task = TASKS["text-to-text"]
    split = split_of(task)
    asked = asked_of(task, split, SETTINGS, None)
    assert [split.texts[row] for row in asked.rows] == asked.prompts
    assert [split.targets[row] for row in asked.rows] == asked.references


def test_true_spans_are_told_as_found_ones() -> None:
    task = TASKS["token-classification"]
    asked = asked_of(task, split_of(task), SETTINGS, None)
    assert asked.references[0] == "THING: my parcel; DAY: today"
    assert asked.references[-1] == ""


@pytest.mark.parametrize(
    ("total", "wanted", "places"), [(3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (10, 1, [0]), (1, 1, [0]), (100, 2, [0, 99])]
)
def test_rows_are_evenly_spread(total: int, wanted: int, places: list[int]) -> None:
    assert spread(total, wanted) == places
