"""Unlabelled text of other data folders, put beside a data folder's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks import unlabelled
from benchmarks.unlabelled import with_unlabelled
from pipelines.errors import DataError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data folders; the recipes take text for `mine` from the other."""
    recipes = tmp_path / "recipes.yaml"
    recipes.write_text(
        yaml.safe_dump({"unlabelled": {"mine": [{"file": "other/train.csv", "column": "said", "min_chars": 4}]}})
    )
    monkeypatch.setattr(unlabelled, "RECIPES", recipes)
    for name in ("mine", "other"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train.csv").write_text("text,label\na,b\n")
    (tmp_path / "data" / "other" / "train.csv").write_text('id,said\n1,"one, two"\n2,no\n3,"one, two"\n4,four\n')
    return tmp_path / "data"


def test_text_of_enough_characters_comes_once_and_the_folder_keeps_its_files(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old.csv").write_text("of an earlier run")
    made = with_unlabelled("mine", shelf / "mine", tmp_path / "made")
    assert {path.name for path in made.iterdir()} == {"train.csv", "unlabelled.csv"}
    assert (made / "train.csv").read_text() == "text,label\na,b\n"
    assert (made / "unlabelled.csv").read_text().splitlines() == ["text", '"one, two"', "four"]
    assert not (shelf / "mine" / "unlabelled.csv").exists()


def test_a_folder_that_nothing_is_named_for_stays_what_it_is(shelf: Path, tmp_path: Path) -> None:
    assert with_unlabelled("other", shelf / "other", tmp_path / "made") == shelf / "other"
    assert not (tmp_path / "made").exists()


def test_a_file_or_column_that_is_missing_is_named(shelf: Path, tmp_path: Path) -> None:
    (shelf / "other" / "train.csv").write_text("id,text\n1,four\n")
    with pytest.raises(DataError, match=r"other/train.csv: no column 'said'"):
        with_unlabelled("mine", shelf / "mine", tmp_path / "made")
    (shelf / "other" / "train.csv").unlink()
    with pytest.raises(DataError, match=r"other/train.csv: missing"):
        with_unlabelled("mine", shelf / "mine", tmp_path / "made")
