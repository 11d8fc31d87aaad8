"""What a recipe can be written from, found in files that nobody has described."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.profile import CLASSES, TAGS, profile
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
    found = profile(path, CLASSES)
    assert (found.text_column, found.second_column, found.columns) == (
        "Utterance",
        "Intent",
        ["id", "Utterance", "Intent"],
    )
    assert found.rows == 5 and found.counts == {"a": 3, "b": 2} and found.files == {}
    assert found.lengths == [11, 19, 20, 20, 28] and found.duplicate_share == pytest.approx(0.2)
    assert found.language == "en"


def test_columns_are_told_by_what_they_hold(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"nr": i, "words": ["x"], "was": f"ein längerer deutscher Satz mit der Nummer {i}", "art": "xyz"[i % 3]}
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = profile(path, CLASSES)
    assert (found.text_column, found.second_column, found.language) == ("was", "art", "de")


def test_a_folder_of_splits(tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        table = pa.table({"text": [f"message number {i}" for i in range(count)], "label": ["a", "b"] * (count // 2)})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    found = profile(tmp_path, CLASSES)
    assert found.files == {"train": "train.parquet", "test": "test.parquet"} and found.rows == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "text,other\n" + "".join(f"a{i},b{i}\n" for i in range(9)),
            "no column looks like the label; .* --label-column",
        ),
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
        profile(tmp_path / "a.csv", CLASSES)


def test_a_folder_without_a_test_file(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"no file for test .*there is train.csv"):
        profile(tmp_path, CLASSES)


def test_an_unreadable_file_says_why(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\nfine,a\n"open,b\n')
    with pytest.raises(DataError, match="line 3: broken quote"):
        profile(tmp_path / "a.csv", CLASSES)


def test_a_text_alone_is_enough_to_write_on(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{i},some words {i}\n" for i in range(9)))
    found = profile(tmp_path / "a.csv", "text-generation")
    assert (found.text_column, found.second_column, found.counts, found.second_lengths) == ("text", None, {}, [])


def test_an_answer_is_told_by_its_name_or_its_length(tmp_path):
    for head, second in (("text,id,summary", "summary"), ("text,id,was", "was")):
        (tmp_path / "a.csv").write_text(f"{head}\n" + "".join(f"some long words {i},{i},short {i}\n" for i in range(9)))
        found = profile(tmp_path / "a.csv", "text-to-text")
        assert (found.text_column, found.second_column, found.second_lengths) == ("text", second, [7] * 5)


def test_tags_are_counted_by_the_word(tmp_path):
    (tmp_path / "a.csv").write_text('text,tags\nAnna reads,B-PER O\nBonn,"[""B-LOC""]"\nshe reads,O O\n')
    assert profile(tmp_path / "a.csv", TAGS).counts == {"O": 3, "B-LOC": 1, "B-PER": 1}


def test_columns_that_are_named_are_taken(tmp_path):
    (tmp_path / "a.csv").write_text(
        "text,label,other,more\n" + "".join(f"t{i},l{i % 2},o{i % 3},words {i}\n" for i in range(9))
    )
    found = profile(tmp_path / "a.csv", CLASSES, "more", "other")
    assert (found.text_column, found.second_column, len(found.counts)) == ("more", "other", 3)
    assert profile(tmp_path / "a.csv", CLASSES, second="text").second_column == "text"


@pytest.mark.parametrize(
    ("content", "task", "names", "words"),
    [
        ("text,other\na b,O O\n", TAGS, {}, r"no column looks like the tags; .* there is other; .* --tags-column"),
        ("text\na\n", "text-to-text", {}, r"no column looks like the target; .* --target-column"),
        ("text,tags\na b,O O\n", TAGS, {}, "holds the tag 'O' alone; a tagger needs words"),
        ("text,label\na,x\n", CLASSES, {"text": "txet"}, r"no column 'txet'; .* did you mean 'text'"),
        ("label\na\nb\n", CLASSES, {"second": "label"}, "is the only column"),
        ("text,label\na,x\n", CLASSES, {"text": "text", "second": "lable"}, r"no column 'lable'.*did you mean 'label'"),
    ],
)
def test_refusals_of_other_tasks(tmp_path, content, task, names, words):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        profile(tmp_path / "a.csv", task, **names)
