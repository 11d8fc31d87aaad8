"""Reading a store: examples in any order, nothing of it copied but the rows asked for."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from pipelines.errors import DataError, ModelError
from pipelines.token_signals.coding import Coding, coding_of, id_bytes, unpack_ids
from pipelines.token_signals.rows import Array, Rows
from pipelines.token_signals.shards import COLUMNS, Index, Shard, read_index

#: Shards mapped at a time; each holds a file descriptor.
MAPPED_SHARDS = 256


class _MappedShard:
    """The columns of one shard, memory-mapped, and where each of its examples begins in them."""

    def __init__(self, folder: Path, shard: Shard, coding: Coding) -> None:
        self._coding, self._entries = coding, 0
        content = np.memmap(folder / shard.file, dtype=np.uint8, mode="r").view(np.ndarray)
        bounds = list(accumulate(shard.sizes(coding).values(), initial=0))
        self._columns = {name: content[a:b] for name, (a, b) in zip(COLUMNS, pairwise(bounds), strict=True)}
        lengths = self._columns["lengths"].view("<u4").reshape(-1, 3)
        self._ends = np.concatenate([np.zeros((1, 3), np.int64), lengths.cumsum(0, dtype=np.int64)])

    def tokens(self, example: int) -> Array:
        width, (start, stop) = id_bytes(self._coding.vocabulary), self._ends[example : example + 2, 0]
        return unpack_ids(self._columns["tokens"][start * width : stop * width], self._coding.vocabulary)

    def predictions(self, example: int) -> int:
        return int(self._ends[example + 1, 1] - self._ends[example, 1])

    def columns(self, example: int) -> tuple[Array, Array, Array]:
        """Heads, ids and codes of one example, as views of the file."""
        (_, first, entry), (_, last, end) = self._ends[example : example + 2]
        coding, width, codes_of = self._coding, id_bytes(self._coding.vocabulary), self._coding.codes_of
        return (
            self._columns["heads"][first * coding.head_bytes : last * coding.head_bytes],
            self._columns["ids"][entry * width : end * width],
            self._columns["codes"][codes_of(first, entry) : codes_of(last, end)],
        )


class TokenSignals:
    """What a teacher said about every token of N examples. Shards are mapped, and checked against their digest, at first touch."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.kind, self.k, self.vocabulary, self.facts = index.kind, index.k, index.vocabulary, index.facts
        self._folder, self._shards = folder, index.shards
        self._coding = coding_of(index.kind, index.k, index.vocabulary)
        self._ends = np.cumsum([0, *(shard.examples for shard in index.shards)])
        self._mapped: OrderedDict[int, _MappedShard] = OrderedDict()
        self._checked: set[int] = set()

    def __len__(self) -> int:
        """Number of examples."""
        return int(self._ends[-1])

    def rows(self, examples: Sequence[int] | Array) -> Rows:
        """The teacher's word on all predictions of some examples, end to end in the order given.

        Raises DataError naming a damaged shard, or an example that is not stored.
        """
        found = [shard.columns(place) for shard, place in map(self._find, examples)]
        if not found:
            return self._coding.unpack(*(np.zeros(0, np.uint8),) * 3)
        return self._coding.unpack(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def predictions(self, example: int) -> int:
        """Number of predictions that the teacher gave for an example."""
        shard, place = self._find(example)
        return shard.predictions(place)

    def tokens(self, example: int) -> Array:
        """Token ids [T] int64 that the teacher read in an example."""
        shard, place = self._find(example)
        return shard.tokens(place)

    def check_tokens(self, example: int, tokens: Sequence[int] | Array) -> None:
        """Raise ModelError unless an example is encoded here as it was for the teacher."""
        ours, theirs = np.asarray(tokens), self.tokens(example)
        if np.array_equal(ours, theirs):
            return
        common = min(len(ours), len(theirs))
        at = int(np.append(np.flatnonzero(ours[:common] != theirs[:common]), common)[0])
        read, saw = (str(side[at]) if at < len(side) else "its end" for side in (ours, theirs))
        raise ModelError(
            f"example {example} is not encoded as the teacher saw it: at token {at} stands {read}, the teacher read {saw}; "
            f"label again with this tokenizer and these rows (`dvc repro label`)"
        )

    def _find(self, example: int) -> tuple[_MappedShard, int]:
        """The shard of an example and its place there."""
        example = operator.index(example)
        if not 0 <= example < len(self):
            raise DataError(f"{self._folder}: no example {example}, signals of {len(self)} are stored; label again")
        number = int(np.searchsorted(self._ends, example, side="right")) - 1
        return self._shard(number), example - int(self._ends[number])

    def _shard(self, number: int) -> _MappedShard:
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        shard = self._shards[number]
        shard.check_size(self._folder, self._coding)
        if number not in self._checked:
            shard.check_content(self._folder)
            self._checked.add(number)
        if len(self._mapped) >= MAPPED_SHARDS:
            self._mapped.popitem(last=False)
        self._mapped[number] = _MappedShard(self._folder, shard, self._coding)
        return self._mapped[number]


def read_token_signals(folder: Path) -> TokenSignals:
    """Open a complete store after checking that every shard is there at its length.

    Raises DataError naming a missing or cut shard, or where the run that wrote the store did not finish.
    """
    index = read_index(folder)
    if not index.complete:
        raise DataError(f"{folder}: the teacher's run ended after {index.examples} examples; label again to go on")
    signals = TokenSignals(folder, index)
    for shard in index.shards:
        shard.check_size(folder, coding_of(index.kind, index.k, index.vocabulary))
    return signals
