"""The clean set on disk: what `validate` writes and every later stage reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.data.rows import SPLITS, UNLABELLED, Row
from pipelines.data.sources import SourceFile
from pipelines.errors import DataError

MEND = "run `dvc repro` again, or `dvc checkout`"


@dataclass(frozen=True)
class Split:
    """Texts and their labels, as places in CleanData.labels."""

    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class CleanData:
    """What `validate` has passed. `digest` is the sha256 over all that is read from here."""

    train: Split
    validation: Split
    test: Split
    labels: list[str]
    unlabelled: list[str]
    digest: str


def write_clean(folder: Path, rows: Sequence[Row], files: Sequence[SourceFile], unlabelled: bool) -> None:
    """Write the splits, the labels and the record of the source: same rows, same bytes."""
    folder.mkdir(parents=True)
    counts = {}
    for split in (*SPLITS, UNLABELLED) if unlabelled else SPLITS:
        own = [row for row in rows if row.split == split]
        counts[split] = len(own)
        columns = {"text": [row.text for row in own]}
        if split != UNLABELLED:
            columns["label"] = [row.label for row in own]
        _write_parquet(folder / f"{split}.parquet", columns)
    write_json(
        folder / "labels.json", sorted({row.label for row in rows if row.split == "train" and row.label is not None})
    )
    write_json(folder / "source.json", {"files": [asdict(file) for file in files], "rows": counts})


def write_json(path: Path, value: Any) -> None:
    """JSON as people read it, the same bytes for the same value."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_parquet(path: Path, columns: dict[str, list[str | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd")


def load_clean(folder: Path) -> CleanData:
    """The clean set of a recipe. Raises DataError where a file is missing, damaged or disagrees with the labels."""
    digest = hashlib.sha256()
    labels = _read_labels(folder / "labels.json", digest)
    splits = {split: _read_split(folder / f"{split}.parquet", labels, digest) for split in SPLITS}
    extra = folder / f"{UNLABELLED}.parquet"
    unlabelled = _read_parquet(extra, ["text"], digest)["text"] if extra.exists() else []
    return CleanData(**splits, labels=labels, unlabelled=unlabelled, digest=digest.hexdigest())


def _read_split(path: Path, labels: Sequence[str], digest: Any) -> Split:
    columns = _read_parquet(path, ["text", "label"], digest)
    numbers = {label: number for number, label in enumerate(labels)}
    unknown = sorted(set(columns["label"]) - set(labels))
    if unknown:
        raise DataError(f"{path}: labels {unknown[:5]} are not in labels.json; {MEND}")
    return Split(columns["text"], [numbers[label] for label in columns["label"]])


def _read_labels(path: Path, digest: Any) -> list[str]:
    try:
        labels = json.loads(_read(path, digest))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); {MEND}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels) or len(labels) < 2:
        raise DataError(f"{path}: not a list of at least two labels; {MEND}")
    return labels


def _read_parquet(path: Path, columns: list[str], digest: Any) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(_read(path, digest)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged ({str(error).splitlines()[0]}); {MEND}") from error
    if table.column_names != columns or any(table[name].null_count for name in columns):
        raise DataError(f"{path}: columns {table.column_names}, but {columns} without gaps are expected; {MEND}")
    return {name: table[name].to_pylist() for name in columns}


def _read(path: Path, digest: Any) -> bytes:
    """A file's bytes, added to the digest together with its name and length."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing from the clean set; {MEND}") from error
    digest.update(f"{path.name}\0{len(raw)}\0".encode())
    digest.update(raw)
    return raw
