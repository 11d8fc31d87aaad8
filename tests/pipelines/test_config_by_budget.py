"""Recipes by budget of models that answer token by token: what they may say, and what is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config import TaggerBudget, WriterBudget, WriterSearch
from tests.sequence_recipes import by_budget, sequence_recipe

WRITES, TAGS = "text-generation", "token-classification"
BYTES = {"metric": "model.bytes", "at_most": 2e6, "at_least": None}


def test_a_writer_and_a_tagger_have_a_budget_of_their_own() -> None:
    writer, tagger = (sequence_recipe(task, **by_budget(task)) for task in (WRITES, TAGS))
    assert isinstance(writer.budget, WriterBudget) and isinstance(writer.explore, WriterSearch)
    assert isinstance(tagger.budget, TaggerBudget) and not isinstance(tagger.explore, WriterSearch)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (WRITES, {"budget": None}, r"a model by budget needs all of .*, and lacks budget"),
        (WRITES, {"distill__control": True}, r"distill\.control is of a student of one shape; set it to false"),
        (
            WRITES,
            {"explore__new_tokens": 21},
            r"prompt_tokens \+ explore\.new_tokens is 25, beyond task\.max_length 24",
        ),
        (WRITES, {"prune__losses__divergence": "uld"}, r"prune\.losses\.divergence is uld, of two tokenizers"),
        (WRITES, {"distill__student__layers": [[0, 2], [1]]}, r"layers \[1\]: name each layer once, in order"),
        (WRITES, {"distill__student__layers": [[0, 1, 2], [0], [0, 2]]}, r"name each depth once, the deepest first"),
        (WRITES, {"distill__student__layers": [[0, 1, 2], [0], [0]]}, r"name each depth once, the deepest first"),
        (
            WRITES,
            {"gate__bounds": [BYTES], "budget__max_bytes": 3e6},
            r"budget\.max_bytes is 3e\+06, and gate\.bounds refuses a model\.bytes above 2e\+06",
        ),
        (TAGS, {"gate__bounds": [BYTES], "budget__cheapest": "p50_ms"}, r"budget\.max_bytes is null, and gate\.bounds"),
        (WRITES, {"distill__student__intermediate_sizes": [16, 32]}, r"name each size once, the largest first"),
        (
            WRITES,
            {"explore__quantizations": {"s": {"technique": "static_int8"}}},
            r"'static_int8' found using 'technique' does not match any",
        ),
        (TAGS, {"explore__new_tokens": 4}, r"Extra inputs are not permitted"),
        (TAGS, {"budget__max_span_f1_loss": None}, r"every bound is null; set at least one of max_bytes"),
    ],
)
def test_what_cannot_end_well_is_refused(task: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sequence_recipe(task, **by_budget(task) | changes)


def test_a_gate_on_bytes_that_the_choice_holds_is_none_of_its_business() -> None:
    for bounds in ({"budget__max_bytes": 2_000_000, "budget__cheapest": "p50_ms"}, {}):
        sequence_recipe(WRITES, **by_budget(WRITES) | {"gate__bounds": [BYTES]} | bounds)


def test_an_encoder_decoder_has_no_elastic_student() -> None:
    parts = by_budget(WRITES)
    for key in ("distill__student", "explore", "budget", "prune", "quantize"):
        with pytest.raises(ValidationError, match=key.partition("__")[0]):
            sequence_recipe("text-to-text", **{key: parts[key]})
