"""Text that a benchmark's student learns from without labels: of the data folders beside its own, as recipes.yaml names them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chain import RECIPES
from pipelines.errors import DataError

#: What recipes.yaml calls it, and the file of a data folder that it becomes.
BLOCK, FILE = "unlabelled", "unlabelled.csv"


def with_unlabelled(name: str, source: Path, folder: Path) -> Path:
    """A data folder with the unlabelled text that recipes.yaml names for it, written to `folder`; `source` itself where it names none.

    Raises DataError where a file or a column of it is missing.
    """
    wanted = _wanted(name)
    if not wanted:
        return source
    texts = [
        text
        for one in wanted
        for text in _texts(source.resolve().parent / one["file"], one["column"])
        if len(text) >= one["min_chars"]
    ]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in dict.fromkeys(texts))])
    return folder


def said_of(name: str, source: Path) -> list[str]:
    """A line for the page: how many texts `with_unlabelled` wrote to its folder, and out of which files; none where it wrote none."""
    wanted = _wanted(name)
    if not wanted:
        return []
    texts, files = len(_texts(source / FILE, "text")), " and ".join(f"`{one['file']}`" for one in wanted)
    return [f"Ours alone also learned from {texts:,} texts without labels, of {files}.", ""]


def _wanted(name: str) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))[BLOCK]
    return found.get(name, [])


def _texts(path: Path, column: str) -> list[str]:
    if not path.is_file():
        raise DataError(
            f"{path}: missing; {RECIPES.name} takes unlabelled text from it, which stands beside the data folder"
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if column not in (rows.fieldnames or ()):
            raise DataError(
                f"{path}: no column {column!r}, which {RECIPES.name} takes text from; there are {rows.fieldnames}"
            )
        return [row[column] for row in rows]
