"""What a recipe can be written from, found in files that nobody has described."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.profile import profile
from pipelines.errors import DataError

TEXTS = [
    "Where is my parcel?",
    "I want my money back, please",
    "where is my  parcel?",
    "Where is my parcel?",
    "hello there",
]


def test_a_named_pair_of_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "id,Utterance,Intent\n" + "".join(f'{i},"{t}",{"ab"[i % 2]}\n' for i, t in enumerate(TEXTS)), encoding="utf-8"
    )
    found = profile(path)
    assert (found.text_column, found.label_column, found.columns) == (
        "Utterance",
        "Intent",
        ["id", "Utterance", "Intent"],
    )
    assert found.rows == 5 and found.label_counts == {"a": 3, "b": 2} and found.files == {}
    assert found.lengths == [11, 19, 20, 20, 28] and found.duplicate_share == pytest.approx(0.2)
    assert found.language == "en"


def test_columns_are_told_by_what_they_hold(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"nr": i, "words": ["x"], "was": f"ein längerer deutscher Satz mit der Nummer {i}", "art": "xyz"[i % 3]}
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = profile(path)
    assert (found.text_column, found.label_column, found.language) == ("was", "art", "de")


def test_a_folder_of_splits(tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        table = pa.table({"text": [f"message number {i}" for i in range(count)], "label": ["a", "b"] * (count // 2)})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    found = profile(tmp_path)
    assert found.files == {"train": "train.parquet", "test": "test.parquet"} and found.rows == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,other\n" + "".join(f"a{i},b{i}\n" for i in range(9)), "no column looks like a label"),
        ("text,label\n,a\n,b\n", "holds no text"),
        ("\n", "no columns"),
        ("text;label\na;b\n", "separated by semicolons or tabs"),
        ('"text";"label"\n"a;b";"c"\n', "separated by semicolons or tabs"),
        ("text,label\na,x\nb,x\n", "the label 'x' alone"),
        ("text,label\na,NaN\nb,nan\n", "no label at all"),
    ],
)
def test_refusals(tmp_path, content, words):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        profile(tmp_path / "a.csv")


def test_a_folder_without_a_test_file(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"no file for test .*there is train.csv"):
        profile(tmp_path)


def test_an_unreadable_file_says_why(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\nfine,a\n"open,b\n')
    with pytest.raises(DataError, match="line 3: broken quote"):
        profile(tmp_path / "a.csv")
