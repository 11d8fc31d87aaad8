"""The exported bundle as a side. Texts come from slm_registry; predictions from the graphs themselves, since what a user calls tells
texts and not what each token cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pipelines.families.batching import MODEL_FILE
from pipelines.families.loading import load_tokenizer
from pipelines.families.sequences import Batch, Example, Rows
from pipelines.sequences.clients import exported_writer
from pipelines.sequences.sides.predicting import Looked, Predictions, look, predictions
from pipelines.techniques.cached_decoding import CausalSession, Seq2SeqSession
from pipelines.techniques.exporting import open_session
from pipelines.techniques.writing_speed import Writer

#: A batch's inputs by name -> logits [B, T, C] of every position.
Logits = Callable[[dict[str, np.ndarray]], np.ndarray]


class Exported:
    """A folder's settings, tokenizer, graphs, and the client that a user has."""

    def __init__(self, folder: Path, threads: int, task: Task) -> None:
        from transformers import AutoConfig

        self._family, self._task = sequence_family_of(task), task
        self._folder, self._threads = folder, threads
        self.tokenizer: Any = load_tokenizer(folder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self._bundle = Bundle(SimpleNamespace(config=config), self.tokenizer, {})
        #: As SequenceSide has it.
        self.write: Writer = exported_writer(folder, threads, task)

    def predict(self, split: Split) -> Predictions:
        """As SequenceSide has it; the graphs are in memory only meanwhile."""
        return predictions(self._family, self._bundle, split, self._task.max_length, self._rows())

    def look(self, examples: Sequence[Example]) -> Looked:
        """As SequenceSide has it."""
        return look(self._family, self._bundle, examples, self._rows())

    def _rows(self) -> Callable[[Batch], Rows]:
        graphs: dict[str, Callable[[Path, int], Logits]] = {
            "text-generation": causal_logits,
            "text-to-text": seq2seq_logits,
            "token-classification": tag_logits,
        }
        logits_of = graphs[self._task.type](self._folder, self._threads)

        def rows_of(batch: Batch) -> Rows:
            logits = torch.from_numpy(logits_of({name: tensor.numpy() for name, tensor in batch.inputs.items()}))
            return Rows(logits[batch.rows, batch.places], nn.Identity())

        return rows_of


def causal_logits(folder: Path, threads: int) -> Logits:
    """Of texts padded on the right, read at once."""
    session = CausalSession(folder / MODEL_FILE, threads)

    def logits(inputs: dict[str, np.ndarray]) -> np.ndarray:
        ids = inputs["input_ids"]
        return session.step(ids, inputs["attention_mask"], session.empty(len(ids)))[0]

    return logits


def seq2seq_logits(folder: Path, threads: int) -> Logits:
    """Of answers, read at once after their texts."""
    session = Seq2SeqSession(folder, threads)

    def logits(inputs: dict[str, np.ndarray]) -> np.ndarray:
        mask = inputs["attention_mask"]
        return session.step(inputs["decoder_input_ids"], mask, session.encode(inputs["input_ids"], mask))[0]

    return logits


def tag_logits(folder: Path, threads: int) -> Logits:
    """Of words' tokens."""
    session = open_session(folder / MODEL_FILE, threads)

    def logits(inputs: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = session.run(["logits"], {item.name: inputs[item.name] for item in session.get_inputs()})[0]
        return found

    return logits
