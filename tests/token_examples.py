"""Made-up examples with a teacher's word on them, the same for the same number; run as a program, it writes a store of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.token_signals import Kind, Rows, SampledRows, TokenSignalsWriter, TopKRows

FACTS = {"teacher_sha256": "ab" * 32, "data_sha256": "cd" * 32, "tokenizer_sha256": "ef" * 32, "seed": 7}


def top_k_rows(logits: np.ndarray, k: int) -> TopKRows:
    """The top k of logits [n, V], by sorting."""
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids = np.argsort(-log_probs, axis=-1, kind="stable")[:, :k]
    return TopKRows.of(ids, np.take_along_axis(log_probs, ids, -1).astype(np.float32))


def sampled_rows(drawn: np.ndarray) -> SampledRows:
    """Draws [n, k] as distinct ids and counts, one row at a time."""
    out = SampledRows(np.zeros(drawn.shape, np.int64), np.zeros(drawn.shape, np.int64))
    for row, draws in enumerate(drawn):
        ids, counts = np.unique(draws, return_counts=True)
        out.ids[row, : len(ids)], out.counts[row, : len(ids)] = ids, counts
    return out


def example_of(number: int, kind: Kind = "top_k", k: int = 4, vocabulary: int = 50) -> tuple[np.ndarray, Rows]:
    """Token ids and signals of one example; lengths differ, some have fewer predictions than tokens, some have none."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(0, vocabulary, rng.integers(1, 12))
    predictions = int(rng.integers(0, len(tokens) + 1))
    if kind == "top_k":
        few = min(vocabulary, 300)
        rows: Rows = top_k_rows(rng.normal(size=(predictions, few)) * 3, k)
        return tokens, TopKRows(rows.ids + vocabulary - few, rows.log_probs, rows.log_tail)
    return tokens, sampled_rows(vocabulary - 1 - rng.geometric(0.3, (predictions, k)).clip(max=vocabulary - 1))


def write(folder: Path, examples: int, pause: float = 0, **settings: Any) -> Path:
    """A store of the first examples, going on where an earlier run ended."""
    settings = {"kind": "top_k", "k": 4, "vocabulary": 50, "facts": FACTS, "shard_bytes": 600} | settings
    with TokenSignalsWriter(folder, **settings) as writer:
        for number in range(writer.written, examples):
            writer.append(number, *example_of(number, settings["kind"], settings["k"], settings["vocabulary"]))
            time.sleep(pause)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a store and its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _die_before_rename(number: int) -> None:
    """Kill this process, as `kill -9` does, in place of its n-th rename."""
    rename, left = Path.replace, [number]

    def replace(path: Path, target: Path) -> Path:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = replace  # type: ignore[method-assign]


if __name__ == "__main__":
    _die_before_rename(int(sys.argv[4]))
    write(Path(sys.argv[1]), int(sys.argv[2]), pause=float(sys.argv[3]))
