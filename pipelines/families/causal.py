"""Causal language models: GPT-2, GPT-Neo(X), GPT-J, Phi, Llama, Mistral, Qwen, Gemma, Mixtral and whatever behaves like them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.bundle import LINEAGE, Bundle, read_lineage
from pipelines.config import FreshModel, FreshStudent, OnPolicy, TeacherTexts
from pipelines.data.clean import CleanData, Split
from pipelines.errors import DataError, ModelError
from pipelines.families.base import TokenIds
from pipelines.families.batching import (
    MODEL_FILE,
    PARITY_PROMPTS,
    PARITY_TOKENS,
    WRITE_BATCH,
    batch_of_ids,
    padded,
    written,
)
from pipelines.families.fresh import fresh_model, resized_model, train_tokenizer
from pipelines.families.loading import Trusted, load_model, load_tokenizer, require_model
from pipelines.families.output import PROBE_TOKENS, check_head, head_of
from pipelines.families.sequences import Batch, Example, Feed, Rows, token_names
from pipelines.techniques.cached_decoding import CausalSession
from pipelines.techniques.exporting_causal import export_causal
from pipelines.techniques.generation_parity import check_causal_parity


class CausalModel:
    """Each token is predicted from those before it. See families/sequences.py for what each method promises."""

    auto = "AutoModelForCausalLM"

    def load(self, folder: Path) -> Bundle:
        require_model(folder, LINEAGE)
        return self._checked(Bundle(load_model(folder, self.auto), load_tokenizer(folder), read_lineage(folder)))

    def load_pretrained(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        require_model(folder)
        bundle = Bundle(load_model(folder, self.auto, trusted=trusted), load_tokenizer(folder), {})
        if bundle.tokenizer.eos_token_id is None:
            raise ModelError(f"{folder}: the tokenizer has no end-of-text token; name one in tokenizer_config.json")
        if bundle.tokenizer.pad_token_id is None:
            bundle.tokenizer.pad_token = bundle.tokenizer.eos_token
        return self._checked(bundle)

    load_ready = load_pretrained

    def fresh(self, choice: FreshModel, data: CleanData, max_length: int) -> Bundle:
        tokenizer = train_tokenizer(choice.tokenizer, data.train.texts, max_length)
        return self._checked(fresh_model(self.auto, choice, tokenizer, max_length))

    def resized(self, teacher: Bundle, choice: FreshStudent) -> Bundle:
        return self._checked(resized_model(self.auto, teacher, choice))

    def examples(self, bundle: Bundle, split: Split, max_length: int) -> list[Example]:
        """Texts end to end, an end-of-text after each, cut into blocks. Each block begins with the token that ended the one
        before, so that every token but the very first is predicted once."""
        stream = list(chain.from_iterable(_documents(bundle.tokenizer, split.texts)))
        blocks = [stream[start : start + max_length] for start in range(0, max(1, len(stream) - 1), max_length - 1)]
        return [Example(block, range(len(block) - 1), block[1:]) for block in blocks if len(block) > 1]

    def collate(self, bundle: Bundle, examples: Sequence[Example]) -> Batch:
        return batch_of_ids(bundle, examples)

    def rows(self, model: Any, batch: Batch) -> Rows:
        return Rows(_states(model, batch.inputs)[batch.rows, batch.places], head_of(model))

    def write(
        self, bundle: Bundle, examples: Sequence[Example], how: TeacherTexts | OnPolicy, seed: int
    ) -> list[Example]:
        """Continuations of the first `prompt_tokens` of each example; what is predicted is the continuation alone."""
        torch.manual_seed(seed)
        found: list[Example] = []
        for start in range(0, len(examples), WRITE_BATCH):
            prompts = [example.ids[: how.prompt_tokens] for example in examples[start : start + WRITE_BATCH]]
            ids, mask = padded(prompts, bundle.tokenizer.pad_token_id, "left")
            answers = written(bundle, (ids, mask), how, skip=ids.shape[1])
            found += [
                Example(prompt + answer, range(len(prompt) - 1, len(prompt) + len(answer) - 1), answer)
                for prompt, answer in zip(prompts, answers, strict=True)
                if answer
            ]
        return found

    def row_lengths(self, bundle: Bundle, split: Split, examples: Sequence[Example]) -> list[int]:
        lengths = [len(document) for document in _documents(bundle.tokenizer, split.texts)]
        return [lengths[0] - 1, *lengths[1:]] if lengths else []

    def class_names(self, bundle: Bundle) -> list[str]:
        return token_names(bundle)

    def export(self, bundle: Bundle, out: Path, max_length: int) -> Sequence[str]:
        export_causal(bundle.model, out / MODEL_FILE, max_length)
        return [MODEL_FILE]

    def check_export(self, bundle: Bundle, out: Path, examples: Sequence[Example], tolerance: float) -> float:
        # Nothing is promised beyond the longest text, and GPT-Neo's table of positions ends there.
        room = max(len(example.ids) for example in examples)
        longest = min(PARITY_TOKENS, room // 2)
        prompts = [
            example.ids[: max(1, longest - 3 * (at % 3))] for at, example in enumerate(examples[:PARITY_PROMPTS])
        ]
        return check_causal_parity(
            out / MODEL_FILE,
            bundle.model,
            prompts,
            new_tokens=min(PARITY_TOKENS, room - longest),
            tolerance=tolerance,
            end=bundle.tokenizer.eos_token_id,
            pad=bundle.tokenizer.pad_token_id,
        )

    def feeds(self, bundle: Bundle, out: Path, examples: Sequence[Example]) -> dict[str, list[Feed]]:
        empty = CausalSession(out / MODEL_FILE).empty(1)
        found = []
        for example in examples:
            ids = np.array([example.ids], dtype=np.int64)
            plain = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.size)[None]}
            found.append(plain | empty)
        return {MODEL_FILE: found}

    def text_bytes(self, split: Split) -> int:
        return sum(len(text.encode("utf-8")) + 1 for text in split.texts)

    def _checked(self, bundle: Bundle) -> Bundle:
        ids = torch.arange(2, 2 + PROBE_TOKENS)[None] % len(bundle.tokenizer)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        check_head(bundle.model, inputs, lambda given: _states(bundle.model, given))
        return bundle


def _documents(tokenizer: Any, texts: Sequence[str]) -> list[TokenIds]:
    if not texts:
        return []
    begin = beginning(tokenizer)
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    empty = next((text for text, row in zip(texts, rows, strict=True) if not row), None)
    if empty is not None:
        raise DataError(f"the text {empty[:40]!r} has no token under this tokenizer; remove the row")
    return [begin + row + [tokenizer.eos_token_id] for row in rows]


def beginning(tokenizer: Any) -> TokenIds:
    """The token that the tokenizer puts before each text, as slm_registry's does; a template puts it there whatever `add_bos_token` says."""
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and tokenizer("a")["input_ids"][0] == begin else []


def _states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Last hidden states [B, T, H], after the last norm."""
    states: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return states
