"""CSV, JSONL and Parquet into rows. Everything is text: "NA", "null" and "001" stay what they are."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.data.decoding import decode
from pipelines.data.rows import shortened
from pipelines.errors import DataError

COMMAS = "the file seems to be separated by semicolons or tabs, save it with commas"

#: A line number and one cell (None: missing) for each wanted column.
Cells = tuple[int, list[str | None]]
SURROGATES = re.compile("[\ud800-\udfff]")
SHOWN = 5


def read_columns(path: Path, location: str, columns: Sequence[str]) -> list[Cells]:
    """The wanted columns of a file, each row with the line it starts on (Parquet: its row number, from 1).

    Raises DataError where the file cannot be read as what its suffix says, lacks a column, or holds no row.
    """
    raw = read_bytes(path, location)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{location}: {_wrong_suffix(path.suffix)}; formats: {', '.join(READERS)}")
    rows = reader(raw, location, columns)
    if not rows:
        raise DataError(f"{location}: no rows, only a header; give at least one row")
    return rows


def column_names(path: Path, location: str) -> list[str]:
    """The columns of a file. Raises DataError as read_columns does."""
    raw = read_bytes(path, location)
    match path.suffix.lower():
        case ".csv":
            text = decode(raw, location)
            with _field_limit(len(text) + 1):
                return next(_csv_records(text, location), (1, []))[1]
        case ".jsonl" | ".ndjson":
            return list(dict.fromkeys(name for _, item in _json_objects(raw, location) for name in item))
        case ".parquet":
            return list(_parquet_file(raw, location).schema_arrow.names)
        case suffix:
            raise DataError(f"{location}: {_wrong_suffix(suffix)}; formats: {', '.join(READERS)}")


def read_lines(path: Path, location: str) -> list[Cells]:
    """Plain text, one text a line; lines of white space alone are left out. Raises DataError as read_columns does."""
    text = decode(read_bytes(path, location), location)
    return [(number, [line or None]) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_bytes(path: Path, location: str) -> bytes:
    """The file's content; DataError where it is absent, a folder, or not ours to read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        pointer = path.with_name(path.name + ".dvc")
        remedy = f"run `dvc pull {pointer}`" if pointer.exists() else "check data.source and data.splits in params.yaml"
        raise DataError(f"{location}: no such file; {remedy}") from error
    except NotADirectoryError as error:
        raise DataError(f"{location}: data.source is a file, but data.splits names files inside it") from error
    except IsADirectoryError as error:
        raise DataError(f"{location}: a folder, not a file; name the file in data.splits") from error
    except PermissionError as error:
        raise DataError(f"{location}: permission denied; make it readable, for example `chmod +r`") from error


def _wrong_suffix(suffix: str) -> str:
    hints = {
        ".json": "write one JSON object a line and name it *.jsonl",
        ".gz": "unpack it first",
        ".zip": "unpack it first",
    }
    hints |= {
        ".xlsx": "export it as CSV in UTF-8",
        ".xls": "export it as CSV in UTF-8",
        ".tsv": "save it with commas as *.csv",
    }
    return f"{suffix or 'a name without suffix'} is not a format we read" + (
        f", {hints[suffix]}" if suffix in hints else ""
    )


# --- CSV --------------------------------------------------------------------------------------------------------------


def _read_csv(raw: bytes, location: str, columns: Sequence[str]) -> list[Cells]:
    text = decode(raw, location)
    with _field_limit(len(text) + 1):
        records = _csv_records(text, location)
        header = next(records, (1, []))[1]
        places = [_column(header, column, location) for column in columns]
        rows: list[Cells] = []
        uneven: list[tuple[int, int]] = []
        for line, fields in records:
            if len(fields) == len(header):
                rows.append((line, [fields[place] for place in places]))
            else:
                uneven.append((line, len(fields)))
    if uneven:
        named = ", ".join(f"line {line} has {count}" for line, count in uneven[:SHOWN])
        more = f" and {len(uneven) - SHOWN} more" if len(uneven) > SHOWN else ""
        raise DataError(
            f"{location}: {len(header)} fields are expected, but {named}{more}; "
            "put quotes around a field that holds a comma"
        )
    return rows


def _csv_records(text: str, location: str) -> Iterator[tuple[int, list[str]]]:
    """Every record with the line it starts on; blank lines are no records."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(_broken_quote(text, line, str(error), location)) from error
        if fields:
            yield line, fields


def _broken_quote(text: str, line: int, error: str, location: str) -> str:
    record = io.StringIO(text, newline="")
    start = next((part for number, part in enumerate(record, 1) if number == line), "")
    if re.match(r'"[^"]*"[;\t]', start):
        return f"{location}: line {line}: {shortened(start)}: {COMMAS}"
    return (
        f"{location}: line {line}: broken quote in the row that starts here ({error}): {shortened(start)}; "
        'close the quote, and write a quote inside a quoted field as ""'
    )


@contextmanager
def _field_limit(characters: int) -> Iterator[None]:
    """Let a field be as long as the file: csv's limit is global, and too low for a check to see a long text."""
    before = csv.field_size_limit(max(characters, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def other_separator(header: Sequence[str]) -> bool:
    """Whether a header of one column reads like several, separated by something else than commas."""
    return len(header) == 1 and (";" in header[0] or "\t" in header[0])


def _column(header: Sequence[str], column: str, location: str) -> int:
    """Place of a column; DataError naming those there and the nearest."""
    if header.count(column) == 1:
        return header.index(column)
    if column in header:
        raise DataError(
            f"{location}: column {column!r} stands {header.count(column)} times in the header; rename all but one"
        )
    near = difflib.get_close_matches(column.lower(), [name.lower() for name in header], n=1)
    hint = f"; did you mean {next(name for name in header if name.lower() == near[0])!r}?" if near else ""
    if other_separator(header):
        hint = f"; {COMMAS}"
    there = ", ".join(repr(name) for name in header[:20]) or "none"
    raise DataError(f"{location}: no column {column!r}; the columns are {there}{hint}")


# --- JSONL ------------------------------------------------------------------------------------------------------------


def _read_jsonl(raw: bytes, location: str, columns: Sequence[str]) -> list[Cells]:
    objects = _json_objects(raw, location)
    names = list(dict.fromkeys(name for _, item in objects for name in item))
    for column in columns:
        if objects:
            _column(names, column, location)
    return [(line, [_json_cell(item.get(name), name, line, location) for name in columns]) for line, item in objects]


def _json_objects(raw: bytes, location: str) -> list[tuple[int, dict[str, Any]]]:
    """Every line's object with the line's number; lines of white space alone are none."""
    lines = decode(raw, location).split("\n")
    return [(number, _json_object(line, number, location)) for number, line in enumerate(lines, 1) if line.strip()]


def _json_object(line: str, number: int, location: str) -> dict[str, Any]:
    try:
        # Numbers keep their spelling: a label 1.0 must not turn into 1.
        item = json.loads(line, parse_int=str, parse_float=str, parse_constant=_json_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        where, why = (
            (f", column {error.colno}", error.msg) if isinstance(error, json.JSONDecodeError) else ("", "too deep")
        )
        message = (
            f"{location}: line {number}{where}: broken JSON ({why}): {shortened(line)}; write one whole object a line"
        )
        raise DataError(message) from error
    if not isinstance(item, dict):
        raise DataError(
            f"{location}: line {number}: a JSON {type(item).__name__}, not an object: {shortened(line)}; "
            "write one object a line"
        )
    return item


def _json_constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _json_cell(value: Any, column: str, number: int, location: str) -> str | None:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(
            f"{location}: line {number}: column {column!r} holds a {kind}: {shortened(json.dumps(value))}; give text"
        )
    # A lone surrogate is no text and could not be written again; the encoding check finds what takes its place.
    return SURROGATES.sub("\ufffd", value)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _read_parquet(raw: bytes, location: str, columns: Sequence[str]) -> list[Cells]:
    import pyarrow as pa

    file = _parquet_file(raw, location)
    for column in columns:
        _column(file.schema_arrow.names, column, location)
    try:
        table = file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{location}: damaged Parquet ({_first_line(error)}); write it again") from error
    values = [table[name].to_pylist() for name in columns]
    return [
        (row, [_parquet_cell(value, name, row, location) for value, name in zip(cells, columns, strict=True)])
        for row, cells in enumerate(zip(*values, strict=True), 1)
    ]


def _parquet_file(raw: bytes, location: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not raw:
        raise DataError(f"{location}: the file is empty; give one with rows")
    try:
        return pq.ParquetFile(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{location}: not a Parquet file ({_first_line(error)}); write it again") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _parquet_cell(value: Any, column: str, row: int, location: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise DataError(
        f"{location}: row {row}: column {column!r} holds a {type(value).__name__}: {shortened(str(value))}; give text"
    )


READERS: dict[str, Callable[[bytes, str, Sequence[str]], list[Cells]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
