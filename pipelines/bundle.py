"""The one on-disk form of a model: a plain Hugging Face folder plus lineage.json, our record of how it came to be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelError

LINEAGE = "lineage.json"
#: What a teacher behind an API answered, and the record of asking it; both stay beside the learner that stands in for it.
ANSWERS, REMOTE = "answers.json", "remote.json"
#: What a classifier saw and answered when it was measured: whoever serves it holds today against that.
REFERENCE = "reference.json"

#: Folder inside a student's: the same student that learnt from the data alone.
CONTROL = "control"
#: Beside an elastic student: its part without layers, which has weights of its own.
WITHOUT_LAYERS = "without-layers"

#: Files that describe a bundle; every other one is a part of the model itself.
DOCUMENTS = frozenset({"README.md", "metrics.json", LINEAGE, ANSWERS, REMOTE, REFERENCE})

Lineage = dict[str, Any]


@dataclass
class Bundle:
    """A loaded model with its tokenizer and its lineage. The model is in evaluation mode."""

    model: Any
    tokenizer: Any
    lineage: Lineage


def sha256_of(path: Path) -> str:
    """Hex digest of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(folder: Path) -> str:
    """Hex digest of a bundle's model files, names included, documents left out."""
    lines = [f"{path.name} {sha256_of(path)}\n" for path in sorted(model_files(folder))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files that make up the model: what a user downloads to run it."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in DOCUMENTS]


def require_files(folder: Path, *names: str) -> None:
    """Raise ModelError unless the folder holds every named file."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; a model is a folder with {', '.join(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: {', '.join(missing)} missing; a usable model folder holds {', '.join(names)}")


def read_json(path: Path) -> Any:
    """Parse one JSON file of a bundle; ModelError names the file and the place where it breaks."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; run the stage that writes it again (`dvc repro`)") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}; run the stage that writes it again") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_lineage(folder: Path) -> Lineage:
    """The lineage of a bundle."""
    lineage: Lineage = read_json(folder / LINEAGE)
    return lineage


def extend_lineage(lineage: Lineage, stage: str, facts: dict[str, Any]) -> Lineage:
    """A copy of a lineage with one more stage's facts."""
    return lineage | {"stages": [*lineage.get("stages", []), {"stage": stage} | facts]}


def download_bytes(folder: Path) -> int:
    """Bytes of the files that a user downloads to run a model; card, metrics and lineage are left out on both sides."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name not in DOCUMENTS)
