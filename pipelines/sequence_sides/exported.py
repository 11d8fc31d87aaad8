"""The exported bundle as a side. Texts come from slm_registry; predictions from the graphs themselves, since what a user calls tells
texts and not what each token cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.bundle import Bundle
from pipelines.config import Task
from pipelines.data.clean import Split
from pipelines.families import sequence_family_of
from pipelines.families.loading import load_tokenizer
from pipelines.families.sequences import Batch, Rows
from pipelines.sequence_sides.predicting import Predictions, predictions
from pipelines.sequence_sides.spans import told
from pipelines.techniques.cached_decoding import CausalSession, Seq2SeqSession
from pipelines.techniques.exporting import open_session
from pipelines.techniques.writing_speed import Written

MODEL_FILE = "model.onnx"


class _Exported:
    """What the exported sides share: settings and tokenizer of the folder, and predictions from its logits."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        from transformers import AutoConfig

        self._family, self._task, self._threads = sequence_family_of(task), task, threads
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Any = load_tokenizer(folder)
        self._bundle = Bundle(SimpleNamespace(config=config), self.tokenizer, {})
        self._folder = folder

    def predict(self, split: Split) -> Predictions:
        """As SequenceSide has it."""
        return predictions(self._family, self._bundle, split, self._task.max_length, self._rows)

    def _rows(self, batch: Batch) -> Rows:
        inputs = {name: tensor.numpy() for name, tensor in batch.inputs.items()}
        logits = torch.from_numpy(self._logits(inputs))
        return Rows(logits[batch.rows, batch.places], nn.Identity())

    def _logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        raise NotImplementedError


class ExportedGenerator(_Exported):
    """A causal language model."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        from slm_registry.runtime.text_generation import TextGenerator

        super().__init__(folder, threads, task)
        self._client: Any = TextGenerator.from_folder(folder, threads=threads)
        self._session: CausalSession | None = None

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """As SequenceSide has it."""
        return _written(self._client.generate(texts, max_new_tokens=new_tokens, truncate=True))

    def _logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self._session = self._session or CausalSession(self._folder / MODEL_FILE, self._threads)
        ids = inputs["input_ids"]
        return self._session.step(ids, inputs["attention_mask"], self._session.empty(len(ids)))[0]


class ExportedAnswerer(_Exported):
    """An encoder-decoder."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        from slm_registry.runtime.text_to_text import TextToText

        super().__init__(folder, threads, task)
        self._client: Any = TextToText.from_folder(folder, threads=threads, max_length=task.max_length)
        self._session: Seq2SeqSession | None = None

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """As SequenceSide has it; a text that is too long is cut, as in training."""
        return _written(self._client.generate(texts, max_new_tokens=new_tokens, truncate=True))

    def _logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self._session = self._session or Seq2SeqSession(self._folder, self._threads)
        mask = inputs["attention_mask"]
        return self._session.step(inputs["decoder_input_ids"], mask, self._session.encode(inputs["input_ids"], mask))[0]


class ExportedTagger(_Exported):
    """A tagger."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        from slm_registry.runtime.token_classification import TokenClassifier

        super().__init__(folder, threads, task)
        self._client: Any = TokenClassifier.from_folder(folder, threads=threads, max_length=task.max_length)
        self._session: Any = None

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """As SequenceSide has it."""
        found = self._client.predict(texts)
        return [
            Written(told((span.label, " ".join(span.text.split())) for span in spans), len(text.split()))
            for text, spans in zip(texts, found, strict=True)
        ]

    def _logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self._session = self._session or open_session(self._folder / MODEL_FILE, self._threads)
        logits: np.ndarray = self._session.run(["logits"], inputs)[0]
        return logits


def _written(answers: list[Any]) -> list[Written]:
    """The client's answers; an end token is a step of work too, though it is not among the tokens."""
    return [Written(one.text, len(one.token_ids) + (one.finish_reason == "end")) for one in answers]
