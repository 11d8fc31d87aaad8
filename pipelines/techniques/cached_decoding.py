"""Greedy decoding on exported files, as plain as it can be: what parity and the factory's own measurements stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.techniques.exporting import open_session

#: The two files of an exported text-to-text model.
ENCODER_FILE, DECODER_FILE = "encoder_model.onnx", "decoder_model.onnx"

#: Cache inputs of one graph by name.
Cache = dict[str, np.ndarray]


class CausalSession:
    """An exported causal model, one step at a time."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session = open_session(path, threads)
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        self._cache_shapes = {name: shape for name, shape in inputs.items() if name.startswith("past_key_values.")}
        self.inputs = sorted(set(inputs) - set(self._cache_shapes))
        self._outputs = [_present(name) for name in self._cache_shapes]

    def empty(self, batch: int) -> Cache:
        """The cache before the first token."""
        return {
            name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in self._cache_shapes.items()
        }

    def step(self, ids: np.ndarray, mask: np.ndarray, cache: Cache, keep: int = 0) -> tuple[np.ndarray, Cache]:
        """Logits of ids [B, T] after the cache's P tokens (mask [B, P + T]), of the last `keep` positions or all, and the longer cache."""
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **cache}
        if keep:
            feed["num_logits_to_keep"] = np.array(keep, np.int64)
        logits, *grown = self._session.run(["logits", *self._outputs], feed)
        return logits, dict(zip(cache, grown, strict=True))


class Seq2SeqSession:
    """An exported encoder and decoder in one folder, one step at a time."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._encoder = open_session(folder / ENCODER_FILE, threads)
        self._decoder = open_session(folder / DECODER_FILE, threads)
        inputs = {item.name: item.shape for item in self._decoder.get_inputs()}
        self._cross = [name for name in inputs if name.endswith((".encoder.key", ".encoder.value"))]
        self._own = {name: shape for name, shape in inputs.items() if name.endswith((".decoder.key", ".decoder.value"))}
        plain = set(inputs) - set(self._cross) - set(self._own)
        self.inputs = (sorted(item.name for item in self._encoder.get_inputs()), sorted(plain))

    def encode(self, ids: np.ndarray, mask: np.ndarray) -> Cache:
        """The cache before the first token: keys and values of the texts ids, mask [B, S], and none of the answer."""
        names = [_present(name) for name in self._cross]
        cross = self._encoder.run(names, {"input_ids": ids, "attention_mask": mask})
        own = {name: np.zeros((len(ids), shape[1], 0, shape[3]), np.float32) for name, shape in self._own.items()}
        return dict(zip(self._cross, cross, strict=True)) | own

    def step(self, ids: np.ndarray, mask: np.ndarray, cache: Cache) -> tuple[np.ndarray, Cache]:
        """Logits [B, T, V] of the answer's next tokens ids [B, T], mask [B, S] the text's, and the longer cache."""
        names = ["logits", *(_present(name) for name in self._own)]
        logits, *grown = self._decoder.run(names, {"input_ids": ids, "encoder_attention_mask": mask, **cache})
        return logits, cache | dict(zip(self._own, grown, strict=True))


def _present(name: str) -> str:
    return name.replace("past_key_values.", "present.")


#: Takes the next token ids [B, T], answers the logits [B, V] after the last of them.
Feed = Callable[[np.ndarray], np.ndarray]


def causal_feed(session: CausalSession, mask: np.ndarray) -> Feed:
    """Feed left-padded prompts with mask [B, T] first, then a token at a time."""
    cache, seen = session.empty(len(mask)), mask[:, :0]

    def feed(ids: np.ndarray) -> np.ndarray:
        nonlocal cache, seen
        seen = np.concatenate([seen, np.ones_like(ids)], axis=1) if seen.size else mask
        logits, cache = session.step(ids, seen, cache, keep=1)
        return logits[:, -1]

    return feed


def seq2seq_feed(session: Seq2SeqSession, ids: np.ndarray, mask: np.ndarray) -> Feed:
    """Feed the start token first, then a token at a time, of answers to the texts ids, mask [B, S]."""
    cache = session.encode(ids, mask)

    def feed(step: np.ndarray) -> np.ndarray:
        nonlocal cache
        logits, cache = session.step(step, mask, cache)
        return logits[:, -1]

    return feed


def greedy(feed: Feed, first: np.ndarray, new_tokens: int, end: int | None, pad: int) -> np.ndarray:
    """The likeliest tokens after first [B, T]: [B, new_tokens], pad after a row's end token."""
    step, open_rows = first, np.ones(len(first), bool)
    found = np.full((len(first), new_tokens), pad, np.int64)
    for index in range(new_tokens):
        found[:, index] = np.where(open_rows, feed(step).argmax(axis=-1), pad)
        open_rows &= found[:, index] != end
        if not open_rows.any():
            break
        step = found[:, index : index + 1]
    return found


def left_padded(rows: list[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask [B, T], padded before the text, as generation wants."""
    width = max(len(row) for row in rows)
    ids = np.array([[pad] * (width - len(row)) + row for row in rows], np.int64)
    mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in rows], np.int64)
    return ids, mask


def right_padded(rows: list[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask [B, S], padded after the text, as encoders want."""
    ids, mask = left_padded([row[::-1] for row in rows], pad)
    return ids[:, ::-1].copy(), mask[:, ::-1].copy()
