"""A look at a file that nobody has described yet, for `flows new`: what its columns are and what is in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.checks import is_nan, same
from pipelines.data.reading import COMMAS, READERS, column_names, other_separator, read_columns
from pipelines.data.rows import SPLITS
from pipelines.errors import DataError

#: Names that people give to the two columns, likeliest first.
TEXT_NAMES = ("text", "utterance", "sentence", "message", "query", "question", "content", "body", "review", "comment")
LABEL_NAMES = ("label", "intent", "category", "class", "target", "topic", "sentiment", "tag")
QUANTILES = (0.0, 0.5, 0.95, 0.99, 1.0)
#: Texts that the language is guessed from.
SAMPLED = 500


@dataclass(frozen=True)
class Profile:
    """What is in a file, or in a folder of split files (then of its training file).

    `lengths` are characters at QUANTILES; `language` is None where most texts leave it open.
    """

    path: str
    files: dict[str, str]
    columns: list[str]
    text_column: str
    label_column: str
    rows: int
    label_counts: dict[str, int]
    lengths: list[int]
    duplicate_share: float
    language: str | None


def profile(path: Path) -> Profile:
    """Look at a file, or at a folder that holds train, validation and test files.

    Raises DataError where it cannot be read, or holds no column that could be the text or the label.
    """
    files = _split_files(path) if path.is_dir() else {}
    looked = path / files["train"] if files else path
    columns = column_names(looked, str(looked))
    if other_separator(columns):
        raise DataError(f"{looked}: one column, {columns[0]!r}; {COMMAS}")
    cells = _cells(looked, columns)
    text, label = _guess(str(looked), cells)
    texts = [value for value in cells[text] if value]
    labels = Counter(value for value in cells[label] if value and not is_nan(value))
    if len(labels) < 2:
        held = f"the label {next(iter(labels))!r} alone" if labels else "no label at all"
        raise DataError(f"{looked}: column {label!r} holds {held}; a classifier needs rows of at least two")
    lengths = sorted(len(value) for value in texts)
    return Profile(
        path=str(path),
        files=files,
        columns=columns,
        text_column=text,
        label_column=label,
        rows=len(cells[text]),
        label_counts=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
        lengths=[lengths[int(quantile * (len(lengths) - 1))] for quantile in QUANTILES],
        duplicate_share=1 - len({same(value) for value in texts}) / len(texts),
        language=_language(texts),
    )


def _split_files(folder: Path) -> dict[str, str]:
    """Split -> file name; DataError where train or test is missing. Validation may be cut from train."""
    found = {
        split: sorted(file.name for suffix in READERS for file in folder.glob(f"{split}{suffix}")) for split in SPLITS
    }
    missing = [split for split in ("train", "test") if not found[split]]
    if missing:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise DataError(
            f"{folder}: no file for {' and '.join(missing)} (for example train.csv); there is {there}; or give one file"
        )
    return {split: names[0] for split, names in found.items() if names}


def _cells(path: Path, columns: Sequence[str]) -> dict[str, list[str | None]]:
    """Every column that reads as text; one that holds lists or the like is neither text nor label."""
    cells: dict[str, list[str | None]] = {}
    unread = DataError(f"{path}: no columns; give a file with a header and rows")
    for name in columns:
        try:
            cells[name] = [values[0] for _, values in read_columns(path, str(path), [name])]
        except DataError as error:
            unread = error
    if not cells:
        raise unread
    return cells


def _guess(location: str, cells: dict[str, list[str | None]]) -> tuple[str, str]:
    """Text and label columns: by name, else the column of the longest values and the one of the fewest distinct."""
    text = _named(cells, TEXT_NAMES) or max(cells, key=lambda name: _mean_length(cells[name]))
    others = {name: values for name, values in cells.items() if name != text}
    label = _named(others, LABEL_NAMES)
    if label is None:
        kinds = {name: len({value for value in values if value}) for name, values in others.items()}
        candidates = [name for name, count in kinds.items() if 2 <= count <= len(cells[text]) / 2]
        if not candidates:
            raise DataError(
                f"{location}: no column looks like a label; the columns are {', '.join(cells)}; "
                "rename the one that is to 'label'"
            )
        label = min(candidates, key=lambda name: kinds[name])
    if not any(cells[text]):
        raise DataError(f"{location}: column {text!r} holds no text; fill it, or rename the column that does to 'text'")
    return text, label


def _named(cells: dict[str, list[str | None]], names: Sequence[str]) -> str | None:
    lowered = {name.strip().lower(): name for name in cells}
    return next((lowered[name] for name in names if name in lowered), None)


def _mean_length(values: Sequence[str | None]) -> float:
    return sum(len(value or "") for value in values) / len(values)


def _language(texts: Sequence[str]) -> str | None:
    """The language with more than half of the votes; a text votes as firmly as the detector is sure of it."""
    from pipelines.data.language import detect

    step = max(1, len(texts) // SAMPLED)
    votes: dict[str, float] = defaultdict(float)
    for language, sure in detect(texts[::step], None):
        votes[language] += sure
    first = max(votes, key=lambda language: votes[language])
    return first if votes[first] > sum(votes.values()) / 2 else None
