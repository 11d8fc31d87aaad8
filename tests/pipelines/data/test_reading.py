"""Files as people have them: what is read stays as it was, and what cannot be is named by file, line and remedy."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.reading import column_names, read_columns, read_lines
from pipelines.errors import DataError

BOTH = ["text", "label"]


@pytest.fixture
def write(tmp_path):
    """Write a file with this content and give its path."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def refused(path: Path, columns: list[str] = BOTH) -> str:
    """The one message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read_columns(path, "data/it", columns)
    message = str(caught.value)
    assert message.startswith("data/it: ") and "\n" not in message
    return message


def test_nothing_is_coerced(write):
    path = write("a.csv", 'label,text,other\nNA,null,1\n001,"1,5",2\n , True,3\n')
    assert read_columns(path, "", BOTH) == [(2, ["null", "NA"]), (3, ["1,5", "001"]), (4, [" True", " "])]


def test_lines_are_those_of_the_editor(write):
    path = write("a.csv", '\ufefftext,label\r\n"two\r\nlines",a\r\n\r\n"a ""quote""",b\r\nlast,c')
    assert read_columns(path, "", BOTH) == [
        (2, ["two\r\nlines", "a"]),
        (5, ['a "quote"', "b"]),
        (6, ["last", "c"]),
    ]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)] * 2),
        min_size=1,
    )
)
def test_csv_gives_back_what_was_written(rows, tmp_path_factory):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([BOTH, *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert [cells for _, cells in read_columns(path, "", BOTH)] == [list(row) for row in rows]


def test_unclosed_quote_names_the_line_where_it_opened(write):
    body = "".join(f"row {i},a\n" for i in range(3)) + '"never closed,b\n' + "".join(f"row {i},c\n" for i in range(9))
    message = refused(write("a.csv", "text,label\n" + body))
    assert "line 5: broken quote" in message and "never closed,b" in message


def test_unclosed_quote_that_a_later_quote_ends(write):
    message = refused(write("a.csv", 'text,label\nfine,a\n"open,a\nfine,a\n"closed",b\n'))
    assert "line 3: broken quote" in message


def test_uneven_rows_are_named(write):
    message = refused(write("a.csv", "text,label\nfine,a\nHello, you,a\nshort\n"))
    assert "2 fields are expected, but line 3 has 3, line 4 has 1" in message and "quotes" in message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("txt,label", "no column 'text'; the columns are 'txt', 'label'; did you mean 'txt'?"),
        ("Text,label", "did you mean 'Text'?"),
        ("text;label", "semicolons"),
        ("text,text,label", "stands 2 times"),
    ],
)
def test_missing_column(write, header, expected):
    assert expected in refused(write("a.csv", header + "\n" + "x," * header.count(",") + "x\n"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.csv", b"text,label\nab,c\nd\0e,f\n", "line 3, byte 17: a NUL byte"),
        ("a.csv", b"PAR1....", "name it *.parquet"),
        ("a.csv", b"PK\x03\x04...", "export it as CSV"),
        ("a.csv", "text,label\n".encode("utf-16"), "UTF-16"),
        ("a.parquet", b"text,label\na,b\n", "not a Parquet file"),
        ("a.parquet", b"", "empty"),
        ("a.xlsx", b"PK", "export it as CSV"),
        ("a.json", b"[]", "*.jsonl"),
        ("a", b"text", "name without suffix"),
    ],
)
def test_files_that_are_something_else(write, name, content, expected):
    assert expected in refused(write(name, content))


def test_another_encoding_is_named_with_its_place(write):
    message = refused(write("a.csv", "text,label\nplain,a\nUn café déjà payé,b\n".encode("cp1252")))
    assert "line 3, byte 25 (0xe9): not UTF-8" in message and "cp1252" in message and "Un café déjà payé" in message
    assert "iconv" in message


def test_mixed_encodings_are_told_from_a_wrong_one(write):
    raw = "text,label\nnaïve,a\n".encode() + "Un café déjà payé,b\n".encode("cp1252")
    message = refused(write("a.csv", raw))
    assert "line 3" in message and "mixes encodings: 1 line(s) are not UTF-8, 1 with accents" in message


def test_byte_offset_counts_the_byte_order_mark(write):
    raw = b"\xef\xbb\xbftext,label\ncaf\xe9 cr\xe8me,b\n"
    assert f"byte {raw.index(0xE9)} " in refused(write("a.csv", raw))


def test_jsonl_keeps_the_spelling_of_numbers_and_missing_values(write):
    lines = [
        '{"text": "a", "label": 1.0}',
        "",
        '{"text": "b", "label": null}',
        '{"label": true, "text": NaN}',
        '{"text": "\\ud800x"}',
    ]
    path = write("a.jsonl", "\n".join(lines))
    assert read_columns(path, "", BOTH) == [
        (1, ["a", "1.0"]),
        (3, ["b", None]),
        (4, [None, "true"]),
        (5, ["\ufffdx", None]),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "a", "label": "b"', "line 2, column 27: broken JSON"),
        ('["a", "b"]', "line 2: a JSON list, not an object"),
        ('{"text": ["a"], "label": "b"}', "line 2: column 'text' holds a list"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_broken_json_lines(write, line, expected):
    assert expected in refused(write("a.jsonl", '{"text": "a", "label": "b"}\n' + line + "\n"))


def test_jsonl_without_the_column_anywhere(write):
    assert "no column 'label'; the columns are 'text', 'labels'; did you mean 'labels'?" in refused(
        write("a.jsonl", json.dumps({"text": "a", "labels": "b"}))
    )


def test_parquet_cells(tmp_path):
    table = pa.table(
        {"text": ["a", None, "c"], "label": pa.array([1, 2, None], pa.int64()), "score": [0.5, float("nan"), 1.0]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_columns(tmp_path / "a.parquet", "", BOTH) == [(1, ["a", "1"]), (2, [None, "2"]), (3, ["c", None])]
    assert [cells for _, cells in read_columns(tmp_path / "a.parquet", "", ["score"])] == [["0.5"], [None], ["1.0"]]
    assert "no column 'txt'" in refused(tmp_path / "a.parquet", ["txt", "label"])


def test_parquet_of_lists_and_of_half_a_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [["a"]], "label": ["b"]}), path)
    assert "row 1: column 'text' holds a list" in refused(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a Parquet file" in refused(path)


def test_absent_folder_and_forbidden(tmp_path, write):
    assert "no such file; check data.source" in refused(tmp_path / "absent.csv")
    (tmp_path / "pulled.csv.dvc").touch()
    assert "dvc pull" in refused(tmp_path / "pulled.csv")
    assert "a folder, not a file" in refused(tmp_path)
    assert "data.splits names files inside" in refused(write("a.csv", "text,label\na,b\n") / "train.csv")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system has no effective user to change")
def test_forbidden_file(write):
    path = write("a.csv", "text,label\na,b\n")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        for parent in list(path.parents)[:3]:
            parent.chmod(0o755)
        os.seteuid(65534)
    try:
        assert "permission denied; make it readable" in refused(path)
    finally:
        os.seteuid(user)


def test_a_text_of_a_megabyte_is_read_and_the_global_limit_restored(write):
    before = csv.field_size_limit()
    path = write("a.csv", f"text,label\n{'x' * 1_000_000},a\n")
    assert len(read_columns(path, "", BOTH)[0][1][0] or "") == 1_000_000
    assert csv.field_size_limit() == before


def test_plain_lines(write):
    assert read_lines(write("a.txt", "one\n\n two \n"), "") == [(1, ["one"]), (3, [" two "])]


def test_column_names(tmp_path, write):
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "a.parquet")
    assert column_names(tmp_path / "a.parquet", "") == ["x", "y"]
    assert column_names(write("a.csv", "a,b\n1,2\n"), "") == ["a", "b"]
    assert column_names(write("a.jsonl", '{"a": 1}\n{"b": 2}\n'), "") == ["a", "b"]


def test_a_hundred_thousand_rows_are_read_in_seconds(write):
    path = write("a.csv", "text,label\n" + "".join(f"where is parcel number {i},late\n" for i in range(100_000)))
    start = time.perf_counter()
    assert read_columns(path, "", BOTH)[-1] == (100_001, ["where is parcel number 99999", "late"])
    assert time.perf_counter() - start < 5
