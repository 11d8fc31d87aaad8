"""Writing a store that survives being killed: every finished shard counts, and the bytes are those of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipelines.errors import DataError, ModelError
from pipelines.locking import locked
from pipelines.token_signals.coding import coding_of, id_problem, pack_ids
from pipelines.token_signals.rows import Array, Kind, Rows
from pipelines.token_signals.shards import COLUMNS, FORMAT, INDEX, Index, Shard, read_index, remedy

#: A shard is closed before it exceeds this; a killed run repeats at most one shard's work.
SHARD_BYTES = 8 << 20


@dataclass
class _Columns:
    """The examples of the shard that is being gathered."""

    parts: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    lengths: Array = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    examples: int = 0
    size: int = 0

    def add(self, lengths: Array, columns: tuple[bytes, ...]) -> None:
        for name, part in zip(COLUMNS, columns, strict=True):
            self.parts[name].append(part)
        self.lengths += lengths
        self.examples += 1
        self.size += sum(map(len, columns))


class TokenSignalsWriter:
    """Writes a teacher's signals, example after example, into a folder; opened again after a crash, it goes on.

    A shard counts once the index names it: file and index are each renamed into place whole. Leaving the context without
    an exception closes the store. Raises DataError where the folder holds signals of other facts or settings or is
    damaged, ModelError where an example cannot be stored, ResourceError where another process writes there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: Kind,
        k: int,
        vocabulary: int,
        facts: dict[str, Any],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._folder, self._coding = folder, coding_of(kind, k, vocabulary)
        given = Index(FORMAT, kind, k, vocabulary, shard_bytes, json.loads(json.dumps(facts)), (), complete=False)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = locked(folder, "signals")
        try:
            self._index = self._resumed(given)
        except BaseException:
            os.close(self._lock)
            raise
        self._open = _Columns()

    def _resumed(self, given: Index) -> Index:
        """The index to go on from, its shards checked. What a killed run left half-written is written over."""
        if not (self._folder / INDEX).exists():
            return given
        stored = read_index(self._folder)
        differences = ", ".join(given.differences(stored))
        if differences:
            raise DataError(f"{self._folder}: holds signals of {differences}; delete the folder to label anew")
        for shard in stored.shards:
            shard.check_size(self._folder, self._coding)
            shard.check_content(self._folder)
        return stored

    @property
    def written(self) -> int:
        """Examples that need not be appended again: the next one's index."""
        return self._index.examples + self._open.examples

    def append(self, example: int, tokens: Array, rows: Rows) -> None:
        """Add the next example: the token ids [T] that the teacher read and its word on each prediction."""
        if self._index.complete:
            raise DataError(
                f"{self._folder}: the store is complete with {self.written} examples; {remedy(self._folder)}"
            )
        if example != self.written:
            raise ModelError(f"example {example} does not follow the {self.written} stored ones; append them in order")
        problem = id_problem(tokens, self._coding.vocabulary) or self._coding.problem(rows)
        if problem:
            raise ModelError(f"example {example}: the teacher's signals cannot be stored: {problem}")
        packed = self._coding.pack(rows)
        lengths = np.array([len(tokens), len(rows.ids), packed.entries])
        token_column = pack_ids(tokens, self._coding.vocabulary)
        columns = (lengths.astype("<u4").tobytes(), token_column, packed.heads, packed.ids, packed.codes)
        if self._open.examples and self._open.size + sum(map(len, columns)) > self._index.shard_bytes:
            self._finish_shard()
        self._open.add(lengths, columns)

    def _finish_shard(self) -> None:
        """Put the gathered examples into a file of their own, then into the index."""
        content = [part for name in COLUMNS for part in self._open.parts[name]]
        digest = hashlib.sha256()
        for part in content:
            digest.update(part)
        tokens, predictions, entries = self._open.lengths.tolist()
        name = f"shard-{len(self._index.shards):05}.bin"
        shard = Shard(name, self._open.examples, tokens, predictions, entries, digest.hexdigest())
        self._replace(name, content)
        self._commit(replace(self._index, shards=(*self._index.shards, shard)))
        self._open = _Columns()

    def _commit(self, index: Index) -> None:
        text = json.dumps(index.record(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        self._replace(INDEX, [text.encode("utf-8")])
        self._index = index

    def _replace(self, name: str, parts: list[bytes]) -> None:
        """Write a file whole or not at all, durable before the next one is begun."""
        partial = self._folder / f"{name}.partial"
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / name)
        os.fsync(self._lock)

    def __enter__(self) -> TokenSignalsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._open.examples:
                    self._finish_shard()
                self._commit(replace(self._index, complete=True))
        finally:
            os.close(self._lock)
