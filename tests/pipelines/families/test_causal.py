from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from pipelines.bundle import Bundle
from pipelines.config import TeacherTexts
from pipelines.data.clean import Split
from pipelines.families.batching import written
from pipelines.families.causal import CausalModel
from tests.tiny_generators import bpe_text, bpe_tokenizer


def beginning_tokenizer() -> Any:
    """One whose template puts a token before each text, as Llama's does, and which says nothing of add_bos_token."""
    core = Tokenizer.from_str(bpe_text())
    core.post_processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|pad|>", eos_token="<|end|>")


def test_a_text_begins_as_the_tokenizer_of_users_begins_it() -> None:
    tokenizer, family = beginning_tokenizer(), CausalModel()
    assert not tokenizer.add_bos_token
    (example,) = family.examples(Bundle(None, tokenizer, {}), Split(["the cat"]), 64)
    assert list(example.ids) == [*tokenizer("the cat")["input_ids"], tokenizer.eos_token_id]
    assert example.ids[0] == tokenizer.bos_token_id

    plain = bpe_tokenizer()
    (example,) = family.examples(Bundle(None, plain, {}), Split(["the cat"]), 64)
    assert list(example.ids) == [*plain("the cat")["input_ids"], plain.eos_token_id]


class Reciter:
    """Writes the same tokens after every prompt, whatever it is told to end with."""

    training = False

    def __init__(self, tokens: list[int], ends: Any) -> None:
        self.tokens, self.generation_config, self.asked = tokens, SimpleNamespace(eos_token_id=ends), None

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def generate(self, input_ids: torch.Tensor, **asked: Any) -> torch.Tensor:
        self.asked = asked["eos_token_id"]
        return torch.cat([input_ids, torch.tensor([self.tokens] * len(input_ids))], dim=1)


def test_writing_ends_at_every_end_that_the_model_names() -> None:
    how = TeacherTexts(rows=1, prompt_tokens=1, max_new_tokens=4, temperature=0, replace=False)
    prompt = torch.tensor([[9]]), torch.tensor([[1]])
    for named, kept in (([7, 0], [5, 7]), (None, [5, 7, 6, 0]), (6, [5, 7, 6])):
        model = Reciter([5, 7, 6, 0], named)
        assert written(Bundle(model, bpe_tokenizer(), {}), prompt, how, skip=1) == [kept]
        assert set(model.asked or []) == {0, *(named if isinstance(named, list) else [named] if named else [])}
