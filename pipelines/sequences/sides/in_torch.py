"""A side in torch, eager: the teacher, and students as they were trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Task, TeacherTexts
from pipelines.data.clean import Split
from pipelines.families import sequence_family_of
from pipelines.families.sequences import Batch, Example, Rows
from pipelines.sequences.sides.predicting import Looked, Predictions, look, predictions
from pipelines.techniques.span_metrics import told_spans
from pipelines.techniques.writing_speed import Written


class TorchWriter:
    """A model that writes."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        torch.set_num_threads(threads)
        self._family, self._task = sequence_family_of(task), task
        self._bundle = self._family.load(folder)
        self.tokenizer: Any = self._bundle.tokenizer

    def predict(self, split: Split) -> Predictions:
        """As SequenceSide has it."""
        return predictions(self._family, self._bundle, split, self._task.max_length, self._rows)

    def look(self, examples: Sequence[Example]) -> Looked:
        """As SequenceSide has it."""
        return look(self._family, self._bundle, examples, self._rows)

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """As SequenceSide has it; prompts of one length side by side."""
        asked = [
            self._family.examples(self._bundle, Split([text], targets=[""]), self._task.max_length)[0] for text in texts
        ]
        written: dict[int, Written] = {}
        for length in sorted({len(example.ids) for example in asked}):
            places = [at for at, example in enumerate(asked) if len(example.ids) == length]
            answers = self._answers([asked[at] for at in places], new_tokens)
            for at, answer in zip(places, answers, strict=True):
                written[at] = Written(self.tokenizer.decode(answer, skip_special_tokens=True), len(answer))
        return [written[at] for at in range(len(texts))]

    def _answers(self, asked: Sequence[Example], new_tokens: int) -> list[list[int]]:
        """The end of the text, which an example of a causal model closes with, is no part of its prompt."""
        how = TeacherTexts(
            rows=len(asked),
            prompt_tokens=max(1, len(asked[0].ids) - 1),
            max_new_tokens=new_tokens,
            temperature=0.0,
            replace=False,
        )
        return [list(one.classes) for one in self._family.write(self._bundle, asked, how, self._task.seed)]

    def _rows(self, batch: Batch) -> Rows:
        return self._family.rows(self._bundle.model, batch)


class TorchTagger(TorchWriter):
    """A model that tags words."""

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """As SequenceSide has it."""
        any_tag = self._family.class_names(self._bundle)[0]
        found = self.predict(Split(texts, targets=[" ".join([any_tag] * len(text.split())) for text in texts]))
        tags = found.named(found.likeliest)
        return [Written(told_spans(text, row), len(text.split())) for text, row in zip(texts, tags, strict=True)]
