"""The clean set on disk: what `validate` writes and every later stage reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import Data, TaggedData, TargetData, TextData
from pipelines.data.rows import SPLITS, UNLABELLED, Row
from pipelines.data.sources import SourceFile
from pipelines.errors import DataError

#: How the clean set calls what is to be answered.
SECOND: dict[type[TextData], str | None] = {Data: "label", TargetData: "target", TaggedData: "target", TextData: None}

MEND = "run `dvc repro` again, or `dvc checkout`"


@dataclass(frozen=True)
class Split:
    """Texts, and what is to be answered: labels as places in CleanData.labels, or targets as text; both empty for text alone."""

    texts: list[str]
    labels: list[int] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)

    def of(self, rows: Sequence[int]) -> Split:
        """Some of its rows."""
        labels = [self.labels[row] for row in rows] if self.labels else []
        targets = [self.targets[row] for row in rows] if self.targets else []
        return Split([self.texts[row] for row in rows], labels, targets)


@dataclass(frozen=True)
class CleanData:
    """What `validate` has passed. `labels` is empty where the task has none; `digest` is the sha256 over all that is read from here."""

    train: Split
    validation: Split
    test: Split
    labels: list[str]
    unlabelled: list[str]
    digest: str

    @property
    def written(self) -> list[str]:
        """Every text that a student may learn from as somebody wrote it."""
        return [*self.train.texts, *self.unlabelled]


def write_clean(folder: Path, rows: Sequence[Row], files: Sequence[SourceFile], data: TextData) -> None:
    """Write the splits, the labels where there are any, and the record of the source: same rows, same bytes."""
    folder.mkdir(parents=True)
    second = SECOND[type(data)]
    counts = {}
    for split in (*SPLITS, UNLABELLED) if data.unlabelled_file is not None else SPLITS:
        own = [row for row in rows if row.split == split]
        counts[split] = len(own)
        columns = {"text": [row.text for row in own]}
        if second is not None and split != UNLABELLED:
            columns[second] = [row.label for row in own]
        _write_parquet(folder / f"{split}.parquet", columns)
    train = [row.label for row in rows if row.split == "train" and row.label is not None]
    if isinstance(data, Data):
        write_json(folder / "labels.json", sorted(set(train)))
    if isinstance(data, TaggedData):
        write_json(folder / "labels.json", sorted({tag for tags in train for tag in tags.split()}))
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
    named = folder / "labels.json"
    labels = _read_labels(named, digest) if named.exists() else []
    splits = {split: _read_split(folder / f"{split}.parquet", labels, digest) for split in SPLITS}
    extra = folder / f"{UNLABELLED}.parquet"
    unlabelled = _read_parquet(extra, [["text"]], digest)["text"] if extra.exists() else []
    return CleanData(**splits, labels=labels, unlabelled=unlabelled, digest=digest.hexdigest())


def _read_split(path: Path, labels: Sequence[str], digest: Any) -> Split:
    with_labels, without = [["text", "label"], ["text", "target"]], [["text"], ["text", "target"]]
    columns = _read_parquet(path, with_labels if labels else [*without, with_labels[0]], digest)
    if "label" in columns and not labels:
        _read(path.with_name("labels.json"), digest)
    if "label" not in columns:
        return Split(columns["text"], targets=columns.get("target", []))
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


def _read_parquet(path: Path, allowed: list[list[str]], digest: Any) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(_read(path, digest)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged ({str(error).splitlines()[0]}); {MEND}") from error
    if table.column_names not in allowed or any(table[name].null_count for name in table.column_names):
        expected = " or ".join(map(str, allowed))
        raise DataError(f"{path}: columns {table.column_names}, but {expected} without gaps are expected; {MEND}")
    return {name: table[name].to_pylist() for name in table.column_names}


def _read(path: Path, digest: Any) -> bytes:
    """A file's bytes, added to the digest together with its name and length."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing from the clean set; {MEND}") from error
    digest.update(f"{path.name}\0{len(raw)}\0".encode())
    digest.update(raw)
    return raw
