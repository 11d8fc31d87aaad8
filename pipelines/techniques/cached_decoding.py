"""Greedy decoding on exported files, as plain as it can be: what parity and the factory's own measurements stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.techniques.exporting import open_session

#: Cache inputs of one graph by name.
Cache = dict[str, np.ndarray]


class CausalSession:
    """An exported causal model, one step at a time."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session = open_session(path, threads)
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        self._cache_shapes = {name: shape for name, shape in inputs.items() if name.startswith("past_key_values.")}
        self.inputs = sorted(set(inputs) - set(self._cache_shapes))
        self._outputs = [name.replace("past_key_values.", "present.") for name in self._cache_shapes]

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


def greedy(
    session: CausalSession, ids: np.ndarray, mask: np.ndarray, new_tokens: int, end: int | None, pad: int
) -> np.ndarray:
    """The likeliest tokens after left-padded prompts ids, mask [B, T]: [B, new_tokens], pad after a row's end token."""
    cache, step = session.empty(len(ids)), ids
    open_rows = np.ones(len(ids), bool)
    found = np.full((len(ids), new_tokens), pad, np.int64)
    for index in range(new_tokens):
        logits, cache = session.step(step, mask, cache, keep=1)
        found[:, index] = np.where(open_rows, logits[:, -1].argmax(axis=-1), pad)
        open_rows &= found[:, index] != end
        if not open_rows.any():
            break
        step = found[:, index : index + 1]
        mask = np.concatenate([mask, np.ones_like(step)], axis=1)
    return found


def left_padded(rows: list[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask [B, T], padded before the text, as generation wants."""
    width = max(len(row) for row in rows)
    ids = np.array([[pad] * (width - len(row)) + row for row in rows], np.int64)
    mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in rows], np.int64)
    return ids, mask
