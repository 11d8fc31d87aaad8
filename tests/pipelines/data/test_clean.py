"""The clean set reads back as it was written, and damage is noticed."""

from __future__ import annotations

import json

import pytest

from pipelines.data.clean import Split, load_clean, write_clean
from pipelines.data.rows import Row
from pipelines.errors import DataError
from tests.recipes import recipe

ROWS = [
    Row("train", "f", 2, "one", "b"),
    Row("train", "f", 3, "two — “2”", "a"),
    Row("validation", "f", 4, "three", "a"),
    Row("test", "f", 5, "four", "b"),
    Row("unlabelled", "g", 1, "five", None),
]


@pytest.fixture
def folder(tmp_path):
    write_clean(tmp_path / "data", ROWS, [], recipe(data__unlabelled="more.txt", data__splits__file="rows.csv").data)
    return tmp_path / "data"


def test_round_trip(folder):
    data = load_clean(folder)
    assert data.labels == ["a", "b"]
    assert (data.train.texts, data.train.labels) == (["one", "two — “2”"], [1, 0])
    assert (data.validation.texts, data.validation.labels) == (["three"], [0])
    assert (data.test.texts, data.test.labels) == (["four"], [1])
    assert data.unlabelled == ["five"]
    assert json.loads((folder / "source.json").read_text())["rows"] == {
        "train": 2,
        "validation": 1,
        "test": 1,
        "unlabelled": 1,
    }


def test_same_rows_same_bytes_and_another_row_another_digest(folder, tmp_path):
    write_clean(tmp_path / "again", ROWS, [], recipe(data__unlabelled="more.txt", data__splits__file="rows.csv").data)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert load_clean(folder).digest == load_clean(tmp_path / "again").digest
    relabelled = [row._replace(label="c") if row.label == "b" else row for row in ROWS]
    write_clean(
        tmp_path / "relabelled", relabelled, [], recipe(data__unlabelled="more.txt", data__splits__file="rows.csv").data
    )
    assert [path.stat().st_size for path in sorted((tmp_path / "relabelled").iterdir())] == [
        path.stat().st_size for path in sorted(folder.iterdir())
    ]
    assert load_clean(folder).digest != load_clean(tmp_path / "relabelled").digest
    write_clean(
        tmp_path / "other",
        [*ROWS, Row("train", "f", 6, "six", "a")],
        [],
        recipe(data__unlabelled="more.txt", data__splits__file="rows.csv").data,
    )
    assert load_clean(folder).digest != load_clean(tmp_path / "other").digest


def test_no_unlabelled_file_unless_the_recipe_names_one(tmp_path):
    write_clean(tmp_path / "data", ROWS[:4], [], recipe().data)
    assert not (tmp_path / "data" / "unlabelled.parquet").exists()
    assert load_clean(tmp_path / "data").unlabelled == []


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet", "labels.json"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing from the clean set; run `dvc repro`"):
        load_clean(folder)


@pytest.mark.parametrize("name", ["validation.parquet", "unlabelled.parquet", "labels.json"])
def test_damaged_file(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{name}: damaged"):
        load_clean(folder)


def test_labels_that_do_not_belong(folder):
    (folder / "labels.json").write_text('["a", "c"]')
    with pytest.raises(DataError, match=r"labels \['b'\] are not in labels.json"):
        load_clean(folder)
    (folder / "labels.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a list of at least two labels"):
        load_clean(folder)


def test_wrong_columns(folder):
    (folder / "train.parquet").write_bytes((folder / "unlabelled.parquet").read_bytes())
    with pytest.raises(DataError, match="columns"):
        load_clean(folder)


def test_some_rows_of_a_split_keep_what_is_known_of_them():
    labelled = Split(["one", "two", "three"], [1, 0, 2])
    assert labelled.of([2, 0]) == Split(["three", "one"], [2, 1])
    answered = Split(["one", "two"], targets=["eins", "zwei"])
    assert answered.of([1]) == Split(["two"], targets=["zwei"])
    assert Split(["one", "two"]).of([1]) == Split(["two"])
