"""Encoder-decoders: T5, BART and whatever behaves like them. A text is read whole, and answered token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.bundle import LINEAGE, Bundle, read_lineage
from pipelines.config import FreshModel, FreshStudent, OnPolicy, TeacherTexts
from pipelines.data.clean import CleanData, Split
from pipelines.families.base import TokenIds
from pipelines.families.batching import PARITY_PROMPTS, PARITY_TOKENS, WRITE_BATCH, batch_of, padded, written
from pipelines.families.fresh import fresh_model, resized_model, train_tokenizer
from pipelines.families.loading import Trusted, load_model, load_tokenizer, require_model
from pipelines.families.output import PROBE_TOKENS, check_head, head_of
from pipelines.families.sequences import Batch, Example, Feed, Rows, token_names
from pipelines.techniques.cached_decoding import DECODER_FILE, ENCODER_FILE, Seq2SeqSession
from pipelines.techniques.exporting_seq2seq import export_seq2seq
from pipelines.techniques.generation_parity import check_seq2seq_parity


class TextToText:
    """An answer a text. See families/sequences.py for what each method promises."""

    auto = "AutoModelForSeq2SeqLM"

    def __init__(self, max_target_length: int) -> None:
        self._max_target_length = max_target_length

    def load(self, folder: Path) -> Bundle:
        require_model(folder, LINEAGE)
        return _checked(Bundle(load_model(folder, self.auto), load_tokenizer(folder), read_lineage(folder)))

    def load_pretrained(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        require_model(folder)
        return _checked(Bundle(load_model(folder, self.auto, trusted=trusted), load_tokenizer(folder), {}))

    load_ready = load_pretrained

    def fresh(self, choice: FreshModel, data: CleanData, max_length: int) -> Bundle:
        texts = [*data.train.texts, *data.train.targets]
        tokenizer = train_tokenizer(choice.tokenizer, texts, max_length)
        return _checked(fresh_model(self.auto, choice, tokenizer, max(max_length, self._max_target_length)))

    def resized(self, teacher: Bundle, choice: FreshStudent) -> Bundle:
        return _checked(resized_model(self.auto, teacher, choice))

    def examples(self, bundle: Bundle, split: Split, max_length: int) -> list[Example]:
        """An example a row; both texts cut where they are too long."""
        if not split.texts:
            return []
        sources = bundle.tokenizer(list(split.texts), truncation=True, max_length=max_length)["input_ids"]
        return [
            Example(source, range(len(target)), target)
            for source, target in zip(sources, self._answers(bundle.tokenizer, split.targets), strict=True)
        ]

    def collate(self, bundle: Bundle, examples: Sequence[Example]) -> Batch:
        pad, start = bundle.tokenizer.pad_token_id, _start(bundle)
        ids, mask = padded([list(example.ids) for example in examples], pad)
        decoded, _ = padded([[start, *example.classes[:-1]] for example in examples], pad)
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoded}
        return batch_of(inputs, examples)

    def rows(self, model: Any, batch: Batch) -> Rows:
        return Rows(_states(model, batch.inputs)[batch.rows, batch.places], head_of(model))

    def write(
        self, bundle: Bundle, examples: Sequence[Example], how: TeacherTexts | OnPolicy, seed: int
    ) -> list[Example]:
        """The model's own answers to the examples' texts."""
        torch.manual_seed(seed)
        found: list[Example] = []
        for start in range(0, len(examples), WRITE_BATCH):
            asked = examples[start : start + WRITE_BATCH]
            inputs = padded([list(example.ids) for example in asked], bundle.tokenizer.pad_token_id)
            answers = written(bundle, inputs, how, skip=1, decoder_start_token_id=_start(bundle))
            found += [
                Example(example.ids, range(len(answer)), answer)
                for example, answer in zip(asked, answers, strict=True)
                if answer
            ]
        return found

    def row_lengths(self, bundle: Bundle, split: Split, examples: Sequence[Example]) -> list[int]:
        return [len(example.classes) for example in examples]

    def class_names(self, bundle: Bundle) -> list[str]:
        return token_names(bundle)

    def export(self, bundle: Bundle, out: Path, max_length: int) -> Sequence[str]:
        export_seq2seq(bundle.model, out, max(max_length, self._max_target_length))
        return [ENCODER_FILE, DECODER_FILE]

    def check_export(self, bundle: Bundle, out: Path, examples: Sequence[Example], tolerance: float) -> float:
        return check_seq2seq_parity(
            out,
            bundle.model,
            [list(example.ids) for example in examples[:PARITY_PROMPTS]],
            new_tokens=min(PARITY_TOKENS, self._max_target_length),
            tolerance=tolerance,
            end=bundle.tokenizer.eos_token_id,
            pad=bundle.tokenizer.pad_token_id,
        )

    def feeds(self, bundle: Bundle, out: Path, examples: Sequence[Example]) -> dict[str, list[Feed]]:
        session = Seq2SeqSession(out)
        found: dict[str, list[Feed]] = {ENCODER_FILE: [], DECODER_FILE: []}
        for example in examples:
            inputs = {name: value.numpy() for name, value in self.collate(bundle, [example]).inputs.items()}
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            found[ENCODER_FILE].append({"input_ids": ids, "attention_mask": mask})
            answer = {"input_ids": inputs["decoder_input_ids"], "encoder_attention_mask": mask}
            found[DECODER_FILE].append(answer | session.encode(ids, mask))
        return found

    def text_bytes(self, split: Split) -> int:
        return sum(len(text.encode("utf-8")) + 1 for text in split.targets)

    def _answers(self, tokenizer: Any, targets: Sequence[str]) -> list[TokenIds]:
        """Target ids, an end of text after each."""
        end, room = tokenizer.eos_token_id, self._max_target_length - 1
        rows = tokenizer(list(targets), add_special_tokens=False)["input_ids"]
        return [[*row[:room], end] for row in rows]


def _start(bundle: Bundle) -> int:
    """The token that an answer begins with."""
    start = bundle.model.config.decoder_start_token_id
    return int(bundle.tokenizer.pad_token_id if start is None else start)


def _states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """The decoder's last hidden states [B, T, H]."""
    read = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    states: Tensor = model.get_decoder()(
        input_ids=inputs["decoder_input_ids"],
        encoder_hidden_states=read.last_hidden_state,
        encoder_attention_mask=inputs["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    return states


def _checked(bundle: Bundle) -> Bundle:
    ids = torch.arange(2, 2 + PROBE_TOKENS)[None] % len(bundle.tokenizer)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    check_head(bundle.model, inputs, lambda given: _states(bundle.model, given))
    return bundle
