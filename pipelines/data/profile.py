"""A look at a file that nobody has described yet, for `flows new`: what its columns are and what is in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.checks import is_nan, same
from pipelines.data.reading import COMMAS, READERS, column_names, other_separator, read_columns
from pipelines.data.rows import SPLITS
from pipelines.data.tagging import joined
from pipelines.errors import DataError

#: Names that people give to the text's column, likeliest first.
TEXT_NAMES = ("text", "utterance", "sentence", "message", "query", "question", "content", "body", "review", "comment")
#: And where there are no labels: beside a label a column of such a name is often something else.
MORE_TEXT_NAMES = ("source", "input", "prompt", "document", "words", "tokens")
#: The same for the column of what a model of the task is to answer; a task without one is not here.
SECOND_NAMES: dict[str, tuple[str, ...]] = {
    "text-classification": ("label", "intent", "category", "class", "target", "topic", "sentiment", "tag"),
    "text-to-text": ("target", "answer", "summary", "translation", "output", "response", "completion", "reply"),
    "token-classification": ("tags", "ner_tags", "labels", "bio", "ner"),
}
CLASSES, TAGS = "text-classification", "token-classification"
QUANTILES = (0.0, 0.5, 0.95, 0.99, 1.0)
#: Texts that the language is guessed from.
SAMPLED = 500


@dataclass(frozen=True)
class Profile:
    """What is in a file, or in a folder of split files (then of its training file).

    `lengths` are the texts' characters at QUANTILES, `second_lengths` those of the other column, which some tasks have not.
    `counts` are rows a label, or words a tag. `language` is None where most texts leave it open.
    """

    path: str
    files: dict[str, str]
    columns: list[str]
    text_column: str
    second_column: str | None
    rows: int
    counts: dict[str, int]
    lengths: list[int]
    second_lengths: list[int]
    duplicate_share: float
    language: str | None


def profile(path: Path, task: str, text: str | None = None, second: str | None = None) -> Profile:
    """Look at a file, or at a folder that holds train, validation and test files, for a model of a task.

    `text` and `second` name the columns; None: they are guessed. Raises DataError where it cannot be read, lacks a column that
    is named, or holds none that could be the text or what is to be answered.
    """
    files = _split_files(path) if path.is_dir() else {}
    looked = path / files["train"] if files else path
    columns = column_names(looked, str(looked))
    if other_separator(columns):
        raise DataError(f"{looked}: one column, {columns[0]!r}; {COMMAS}")
    named = [name for name in (text, second) if name is not None]
    if named:
        read_columns(looked, str(looked), named)
    cells = _cells(looked, columns)
    text, second = _guess(str(looked), cells, task, text, second)
    texts = [value for value in cells[text] if value]
    answers = [value for value in cells[second] if value and not is_nan(value)] if second is not None else []
    return Profile(
        path=str(path),
        files=files,
        columns=columns,
        text_column=text,
        second_column=second,
        rows=len(cells[text]),
        counts=_counts(str(looked), task, second, answers),
        lengths=_lengths(texts),
        second_lengths=_lengths(answers),
        duplicate_share=1 - len({same(value) for value in texts}) / len(texts),
        language=_language(texts),
    )


def _lengths(values: Sequence[str]) -> list[int]:
    lengths = sorted(map(len, values))
    return [lengths[int(quantile * (len(lengths) - 1))] for quantile in QUANTILES] if lengths else []


def _counts(location: str, task: str, column: str | None, answers: Sequence[str]) -> dict[str, int]:
    """Rows a label, or words a tag, the most frequent first; DataError where there is nothing to tell apart."""
    if task not in (CLASSES, TAGS):
        return {}
    told = (
        answers
        if task == CLASSES
        else [tag for cell in answers for tag in (joined([cell], 0, location=location)[0] or "").split()]
    )
    found = Counter(told)
    kind = "label" if task == CLASSES else "tag"
    if len(found) < 2:
        held = f"the {kind} {next(iter(found))!r} alone" if found else f"no {kind} at all"
        needs = "a classifier needs rows" if task == CLASSES else "a tagger needs words"
        raise DataError(f"{location}: column {column!r} holds {held}; {needs} of at least two")
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


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


def _guess(
    location: str, cells: dict[str, list[str | None]], task: str, text: str | None, second: str | None
) -> tuple[str, str | None]:
    """Text and second column where they are not given: by name, else text is the column of the longest values."""
    if text is None:
        left = {name: values for name, values in cells.items() if name != second}
        names = TEXT_NAMES if task == CLASSES else TEXT_NAMES + MORE_TEXT_NAMES
        text = _named(left, names) or max(left, key=lambda name: _mean_length(left[name]), default=None)
    if text is None:
        raise DataError(f"{location}: {second!r} is the only column; a {task} recipe needs one of texts too")
    if not any(cells[text]):
        raise DataError(
            f"{location}: column {text!r} holds no text; fill it, or name the column that does with --text-column"
        )
    if task not in SECOND_NAMES or second is not None:
        return text, second
    others = {name: values for name, values in cells.items() if name != text}
    return text, _named(others, SECOND_NAMES[task]) or _answering(location, others, task, len(cells[text]))


def _answering(location: str, cells: dict[str, list[str | None]], task: str, rows: int) -> str:
    """The column of the fewest distinct values for labels, of the longest for texts; tags are told by their name alone."""
    if task == CLASSES:
        kinds = {name: len({value for value in values if value}) for name, values in cells.items()}
        candidates = [name for name, count in kinds.items() if 2 <= count <= rows / 2]
        if candidates:
            return min(candidates, key=lambda name: kinds[name])
    elif task != TAGS and cells:
        return max(cells, key=lambda name: _mean_length(cells[name]))
    word = {CLASSES: "label", TAGS: "tags"}.get(task, "target")
    raise DataError(
        f"{location}: no column looks like the {word}; besides the text there is {', '.join(cells) or 'none'}; "
        f"name it with --{word}-column"
    )


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
