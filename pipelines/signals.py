"""Teacher signals on disk: written once, memory-mapped ever after.

signals/
  index.json       counts, layers, digests of teacher, data and every file below
  keys.npy         [N, 16] uint8, first half of the text's sha256: what a row belongs to
  tokens.npy       [total] int32 token ids of all texts, end to end
  offsets.npy      [N + 1] int64: tokens of text i are tokens[offsets[i]:offsets[i + 1]]
  levers.json      the synthetic texts, by what made them
  logits.npy       [N, C] float16
  hidden.<layer>.npy, relation_{queries,keys,values}.npy   [total, H] float16, a row a token; only where asked for
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.bundle import Bundle, read_json, sha256_of, write_json
from pipelines.config import Label, Task
from pipelines.errors import DataError, ModelError
from pipelines.families import family_of
from pipelines.families.base import Family, Outputs, TokenIds
from pipelines.fanning import Batches, Fan, map_large, pieces_of
from pipelines.progress import Progress
from pipelines.reproducible import fixed

#: The largest number of the type that signals are stored in.
FLOAT16 = float(np.finfo(np.float16).max)
Array = NDArray[Any]
RELATIONS = ("relation_queries", "relation_keys", "relation_values")


def text_key(text: str) -> bytes:
    """What a text is stored under: half of its sha256."""
    return hashlib.sha256(text.encode("utf-8")).digest()[:16]


def cut_key(tokenizer: Any, ids: TokenIds) -> bytes:
    """Digest of a text's tokens as words: the ids of two tokenizers may differ where the cuts are the same."""
    return hashlib.sha256("\x1f".join(tokenizer.convert_ids_to_tokens(ids)).encode("utf-8")).digest()[:8]


@dataclass(frozen=True)
class Signals:
    """What a teacher said about N texts, memory-mapped."""

    rows: Mapping[bytes, int]
    cuts: Array
    offsets: Array
    logits: Array
    levers: Mapping[str, list[str]]
    hidden: Mapping[int, Array]
    relations: tuple[Array, ...]
    teacher_heads: int

    def rows_of(self, texts: Sequence[str]) -> Array:
        """Row of each text; DataError names the first text that the teacher has not seen."""
        missing = next((text for text in texts if text_key(text) not in self.rows), None)
        if missing is not None:
            raise DataError(f"the stored signals lack the text {missing[:60]!r}; label again: `dvc repro label`")
        return np.array([self.rows[text_key(text)] for text in texts], dtype=np.int64)

    def logits_of(self, rows: Array) -> Tensor:
        """Teacher logits [len(rows), C], float32."""
        return torch.from_numpy(self.logits[rows].astype(np.float32))

    def padded(self, states: Array, rows: Array, length: int) -> Tensor:
        """Per-token states of some texts, padded with zeros: [len(rows), length, H] float32."""
        out = np.zeros((len(rows), length, states.shape[1]), dtype=np.float32)
        for index, row in enumerate(rows):
            start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
            out[index, : stop - start] = states[start:stop]
        return torch.from_numpy(out)

    def cut_alike(self, rows: Array, tokenizer: Any, encoded: Sequence[TokenIds]) -> NDArray[np.bool_]:
        """Which texts another tokenizer cuts into the teacher's tokens."""
        ours = np.frombuffer(b"".join(cut_key(tokenizer, ids) for ids in encoded), dtype=np.uint8).reshape(-1, 8)
        alike: NDArray[np.bool_] = (ours == self.cuts[rows]).all(axis=1)
        return alike


@dataclass(frozen=True)
class Hearing:
    """A teacher's forward passes over pieces of the texts. It travels to another process as the folder that it was loaded from."""

    folder: Path
    family: Family
    teacher: Bundle
    task: Task
    wanted: Label

    def __call__(self, piece: Sequence[Sequence[TokenIds]]) -> Batches:
        """What is stored of each batch of a piece: logits [B, C], states a token [tokens, H], float16."""
        with torch.inference_mode(), fixed(self.task, self.task.threads):
            return [self._hear(batch) for batch in piece]

    def _hear(self, batch: Sequence[TokenIds]) -> dict[str, Array]:
        inputs = self.family.collate(self.teacher.tokenizer, batch)
        outputs = self.family.forward(self.teacher.model, inputs, self.wanted.hidden_layers, self.wanted.relations)
        lengths = [len(row) for row in batch]
        return {"logits": _halved("logits", outputs.logits)} | {
            name: _halved(name, torch.cat([states[index, :length] for index, length in enumerate(lengths)]))
            for name, states in _per_token(outputs).items()
        }

    def __reduce__(self) -> tuple[Callable[..., Hearing], tuple[Path, Task, Label]]:
        return open_hearing, (self.folder.absolute(), self.task, self.wanted)


def open_hearing(folder: Path, task: Task, wanted: Label) -> Hearing:
    """Load a teacher. Raises ModelError where there is none."""
    family = family_of(task)
    return Hearing(folder, family, family.load(folder), task, wanted)


def write_signals(
    folder: Path,
    hearing: Hearing,
    texts: Sequence[str],
    encoded: Sequence[TokenIds],
    levers: Mapping[str, Sequence[str]],
    facts: dict[str, Any],
    fan: Fan,
) -> None:
    """Run the teacher over every text once and store what it says, the same bytes whoever does it. `facts` go into index.json beside the digests.

    `levers` names the synthetic ones among the texts by what made them.

    Raises ModelError where a wanted layer does not exist, or a number of it is beyond float16.
    """
    teacher, wanted = hearing.teacher, hearing.wanted
    depth = teacher.model.config.num_hidden_layers
    if wanted.hidden_layers and max(wanted.hidden_layers) >= depth:
        raise ModelError(f"label.hidden_layers {wanted.hidden_layers}: the teacher has layers 0 to {depth - 1}")
    folder.mkdir(parents=True)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in encoded])]).astype(np.int64)
    np.save(
        folder / "keys.npy", np.frombuffer(b"".join(text_key(text) for text in texts), dtype=np.uint8).reshape(-1, 16)
    )
    write_json(folder / "levers.json", {name: list(made) for name, made in levers.items()})
    np.save(folder / "offsets.npy", offsets)
    cuts = b"".join(cut_key(teacher.tokenizer, row) for row in encoded)
    np.save(folder / "cuts.npy", np.frombuffer(cuts, dtype=np.uint8).reshape(-1, 8))
    _run_teacher(folder, hearing, encoded, offsets, fan)
    facts = facts | {
        "hidden_layers": wanted.hidden_layers,
        "relations": wanted.relations,
        "teacher_heads": teacher.model.config.num_attention_heads,
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / "index.json", facts)


def _run_teacher(folder: Path, hearing: Hearing, encoded: Sequence[TokenIds], offsets: Array, fan: Fan) -> None:
    """Forward passes by length; every file is opened at its final size at the first batch."""
    files: dict[str, Array] = {}
    order = np.argsort([len(row) for row in encoded], kind="stable")
    size = hearing.wanted.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    pieces = pieces_of(fan, batches)
    said = map_large(
        fan, hearing, [[[encoded[row] for row in rows] for rows in piece] for piece in pieces], folder / "pieces"
    )
    with Progress("label", len(order)) as progress:
        for rows, heard in zip(chain.from_iterable(pieces), chain.from_iterable(said), strict=True):
            if not files:
                sizes = {name: len(order) if name == "logits" else int(offsets[-1]) for name in heard}
                files = {
                    name: _create(folder / f"{name}.npy", (sizes[name], found.shape[-1]))
                    for name, found in heard.items()
                }
            files["logits"][rows] = heard["logits"]
            places = np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in rows])
            for name in files.keys() - {"logits"}:
                files[name][places] = heard[name]
            progress.advance(len(rows))
    for array in files.values():
        array.flush()  # type: ignore[attr-defined]


def _halved(name: str, values: Tensor) -> Array:
    """Values as float16. Raises ModelError where one is beyond it."""
    largest = float(values.abs().max())
    if not largest <= FLOAT16:
        raise ModelError(
            f"teacher: {name} holds {largest:.4g}, beyond float16's {FLOAT16:g} in which signals are stored; of hidden states leave the layer "
            "out of label.hidden_layers and set the losses that read it to 0, of logits take another teacher"
        )
    found: Array = values.numpy().astype(np.float16)
    return found


def _per_token(outputs: Outputs) -> dict[str, Tensor]:
    """File name -> states [B, T, H] of what is stored a token."""
    hidden = {f"hidden.{layer}": states for layer, states in outputs.hidden.items()}
    return hidden | dict(zip(RELATIONS, outputs.relations, strict=False))


def _create(path: Path, shape: tuple[int, int]) -> Array:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def read_signals(folder: Path) -> Signals:
    """Open stored signals after checking every file's digest; DataError names a damaged file and how to make it again."""
    index = read_json(folder / "index.json")
    for name, digest in index["files"].items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            state = "is damaged" if path.is_file() else "is missing"
            raise DataError(
                f"{path}: the stored signal file {state}; `dvc repro` makes it again (or delete {folder} and repeat)"
            )
    arrays = [name for name in index["files"] if name.endswith(".npy")]
    load = {name: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in arrays}
    keys = [bytes(key) for key in load["keys.npy"]]
    return Signals(
        rows={key: row for row, key in enumerate(keys)},
        cuts=load["cuts.npy"],
        offsets=load["offsets.npy"],
        logits=load["logits.npy"],
        levers=read_json(folder / "levers.json"),
        hidden={layer: load[f"hidden.{layer}.npy"] for layer in index["hidden_layers"]},
        relations=tuple(load[f"{name}.npy"] for name in RELATIONS) if index["relations"] else (),
        teacher_heads=index["teacher_heads"],
    )
