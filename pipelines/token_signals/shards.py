"""The files of a store: which columns a shard holds and where, and the index that makes shards count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.bundle import read_json, sha256_of
from pipelines.errors import DataError
from pipelines.token_signals.coding import Coding, id_bytes
from pipelines.token_signals.rows import Kind

INDEX = "index.json"

#: Goes up when the same bytes mean something else.
FORMAT = 1

#: Order of the columns in a shard.
COLUMNS = ("lengths", "tokens", "heads", "ids", "codes")


@dataclass(frozen=True)
class Shard:
    """One file of whole examples."""

    file: str
    examples: int
    tokens: int
    predictions: int
    entries: int
    sha256: str

    def sizes(self, coding: Coding) -> dict[str, int]:
        """Bytes of each column, in order."""
        width = id_bytes(coding.vocabulary)
        codes = coding.codes_of(self.predictions, self.entries)
        sizes = (
            12 * self.examples,
            width * self.tokens,
            coding.head_bytes * self.predictions,
            width * self.entries,
            codes,
        )
        return dict(zip(COLUMNS, sizes, strict=True))

    def check_size(self, folder: Path, coding: Coding) -> None:
        """Raise DataError where the file is missing or of another length."""
        path, wanted = folder / self.file, sum(self.sizes(coding).values())
        if not path.is_file():
            raise DataError(f"{path}: the shard of stored signals is missing; {remedy(folder)}")
        found = path.stat().st_size
        if found != wanted:
            raise DataError(f"{path}: the shard of stored signals has {found} bytes, not {wanted}; {remedy(folder)}")

    def check_content(self, folder: Path) -> None:
        """Raise DataError where the file's digest is not the index's."""
        if sha256_of(folder / self.file) != self.sha256:
            raise DataError(f"{folder / self.file}: the shard of stored signals is damaged; {remedy(folder)}")


@dataclass(frozen=True)
class Index:
    """What index.json says. `settings` are the kind's, `facts` the caller's: teacher, data, tokenizer."""

    format: int
    kind: Kind
    k: int
    vocabulary: int
    shard_bytes: int
    facts: dict[str, Any]
    shards: tuple[Shard, ...]
    complete: bool

    @property
    def examples(self) -> int:
        """Examples in whole shards."""
        return sum(shard.examples for shard in self.shards)

    def record(self) -> dict[str, Any]:
        """The JSON value."""
        return asdict(self)

    def differences(self, other: Index) -> Iterator[str]:
        """What another store was written for, in words, where it is not this one's."""
        for name in ("kind", "k", "vocabulary", "shard_bytes"):
            if getattr(self, name) != getattr(other, name):
                yield f"{name} {getattr(other, name)!r} (now {getattr(self, name)!r})"
        for name in sorted(self.facts.keys() | other.facts.keys()):
            if self.facts.get(name) != other.facts.get(name):
                yield f"{name} {other.facts.get(name)!r} (now {self.facts.get(name)!r})"


def read_index(folder: Path) -> Index:
    """The index of a store; DataError where it is none, ModelError where it is missing or not JSON."""
    value = read_json(folder / INDEX)
    try:
        shards = tuple(Shard(**shard) for shard in value["shards"])
        index = Index(**(value | {"shards": shards}))
    except (TypeError, KeyError) as error:
        raise DataError(f"{folder / INDEX}: not the index of token signals ({error}); {remedy(folder)}") from error
    if index.format != FORMAT:
        raise DataError(f"{folder / INDEX}: of format {index.format}, read is {FORMAT}; {remedy(folder)}")
    return index


def remedy(folder: Path) -> str:
    """How to get a store that is whole."""
    return f"delete {folder} and label again"
