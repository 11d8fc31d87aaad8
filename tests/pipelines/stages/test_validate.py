"""The whole stage, on real files and with the real Great Expectations."""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import run
from pipelines.config import Data, Task
from pipelines.data.clean import load_clean
from pipelines.data.near import near_matches
from pipelines.errors import DataError
from pipelines.stages.validate import validate

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
TASK = Task(type="text-classification", seed=7, max_length=64, threads=1)
MADE = {"kind": "made", "file": None, "validation": 0.2, "test": 0.2}
GIVEN = {"kind": "given", "train": "train.csv", "validation": "validation.csv", "test": "test.csv"}
SIMPLE = ("empty_text", "missing_label", "duplicates", "conflicting_labels", "leakage_exact", "encoding_damage")

NOUNS = ["parcel", "invoice", "jacket", "lamp", "teapot", "bicycle", "garden", "kettle", "mirror", "blanket"]
ASKS = {
    "late": "why has the {} not come by {}",
    "refund": "please return what I paid for a {} on {}",
    "size": "does your {} also fit {}",
}
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]
#: 150 rows in three classes, no two alike by more than the threshold.
GOOD = [(ask.format(noun, day), label) for label, ask in ASKS.items() for noun in NOUNS for day in DAYS]
SIMILARITY = 0.95


def recipe(splits: dict, action: str, unlabelled: str | None = None, **changes) -> Data:
    """A recipe's data section with one action for every check; `changes` replace single checks."""
    checks = {
        **dict.fromkeys(SIMPLE, action),
        "long_text": {"action": action, "max_chars": 200},
        "label_set": {"action": action, "allowed": None},
        "class_count": {"action": action, "min_rows": 5},
        "leakage_near": {"action": action, "similarity": SIMILARITY},
        "language": None,
    }
    section = {"source": "unused", "text_column": "text", "label_column": "label", "splits": splits}
    return Data(**section, unlabelled=unlabelled, checks=checks | changes)


def write(path: Path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


class Place:
    """The stage's paths as `python -m pipelines` hands them over, before it moves them into place."""

    def __init__(self, folder: Path) -> None:
        self.clean, self.report, self.failed = (
            folder / name for name in ("data.partial", "validation.partial", "validation.failed")
        )

    def run(self, source: str, data: Data) -> None:
        validate(source, self.clean, self.report, TASK, data)

    def refused(self, source: str, data: Data) -> str:
        with pytest.raises(DataError) as caught:
            self.run(source, data)
        assert not self.clean.exists()
        return str(caught.value)

    def quarantine(self, folder: Path | None = None) -> list[dict[str, str]]:
        path = (folder or self.report) / "quarantine.csv"
        return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "build")


def test_made_splits(place, tmp_path):
    place.run(write(tmp_path / "rows.csv", GOOD), recipe(MADE, "fail"))
    data = load_clean(place.clean)
    assert data.labels == ["late", "refund", "size"]
    split_texts = [data.train.texts, data.validation.texts, data.test.texts]
    assert [len(texts) for texts in split_texts] == [90, 30, 30]
    assert Counter(text for texts in split_texts for text in texts) == Counter(text for text, _ in GOOD)
    assert Counter(data.test.labels) == {0: 10, 1: 10, 2: 10}
    assert dict(GOOD)[data.train.texts[0]] == data.labels[data.train.labels[0]]
    assert place.quarantine() == []
    source = json.loads((place.clean / "source.json").read_text())
    digest = hashlib.sha256((tmp_path / "rows.csv").read_bytes()).hexdigest()
    assert source["rows"] == {"train": 90, "validation": 30, "test": 30}
    assert source["files"] == [
        {
            "split": "uncut",
            "file": "rows.csv",
            "sha256": digest,
            "bytes": (tmp_path / "rows.csv").stat().st_size,
            "rows": 150,
        }
    ]


def test_same_input_same_bytes(tmp_path):
    source = write(tmp_path / "rows.csv", [*GOOD, GOOD[0], ("", "late")])
    places = [Place(tmp_path / name) for name in ("one", "two")]
    for place in places:
        place.run(source, recipe(MADE, "quarantine"))
    for folder in ("clean", "report"):
        one, two = (getattr(place, folder) for place in places)
        names = [path.name for path in one.iterdir() if path.is_file()]
        assert names
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert str(tmp_path) not in (places[0].clean / "source.json").read_text()


#: Bad rows, by the check that finds each.
BAD = {
    "empty_text": ("  ", "late"),
    "missing_label": ("a question of its own kind", ""),
    "long_text": ("so long " * 125_000, "late"),
    "encoding_damage": ("donâ€™t know where it went", "late"),
    "duplicates": GOOD[3],
    "class_count": ("the only one of its kind", "alone"),
}


@pytest.mark.parametrize("check", BAD)
def test_a_finding_fails_and_leaves_its_report(place, tmp_path, check):
    source = write(tmp_path / "rows.csv", [*GOOD, BAD[check]])
    message = place.refused(source, recipe(MADE, "fail"))
    assert f"{check}: 1 row(s)" in message and "rows.csv:152: " in message
    assert message.startswith(f"{source}: the data does not pass (1 check(s) failed")
    assert str(place.failed / "docs" / "index.html") in message and len(message) < 1_500
    assert [row["check"] for row in place.quarantine(place.failed)] == [check]
    report = json.loads((place.failed / "report.json").read_text())
    assert report["passed"] is False and report["checks"][check]["count"] == 1
    assert check in page(place.failed, "rows as read")


def test_findings_are_quarantined_with_their_reasons(place, tmp_path):
    place.run(write(tmp_path / "rows.csv", [*GOOD, *BAD.values()]), recipe(MADE, "quarantine"))
    found = place.quarantine()
    assert [(row["check"], row["line"]) for row in found] == [(check, str(152 + i)) for i, check in enumerate(BAD)]
    assert all(row["reason"] and row["file"] == "rows.csv" for row in found)
    assert found[2]["text"] == BAD["long_text"][0]
    data = load_clean(place.clean)
    assert len(data.train.texts) + len(data.validation.texts) + len(data.test.texts) == len(GOOD)
    report = json.loads((place.report / "report.json").read_text())
    assert report["passed"] is True
    assert {
        check: summary["count"] for check, summary in report["checks"].items() if summary["count"]
    } == dict.fromkeys(BAD, 1)
    assert {verdict["success"] for verdict in report["expectations"] if verdict["page"] == "clean rows"} == {True}


def page(report: Path, name: str) -> str:
    (found,) = (report / "docs" / "validations" / name).rglob("*.html")
    return found.read_text(encoding="utf-8")


def test_the_pages_need_no_network_and_run_nothing(place, tmp_path):
    evil = "<script>alert(1)</script><img src=http://evil.example/x.png>"
    place.run(write(tmp_path / "rows.csv", [*GOOD, (evil, "late"), (evil, "late")]), recipe(MADE, "quarantine"))
    pages = list((place.report / "docs").rglob("*.html"))
    assert len(pages) == 5
    for html in (path.read_text(encoding="utf-8") for path in pages):
        assert not re.search(r"<(script|link|img|iframe)\b|url\(['\"]?(https?:)?//", html)
        assert "default-src 'none'" in html and html.index("Content-Security-Policy") < html.index("<style")
    assert "&lt;script&gt;alert(1)" in page(place.report, "rows as read")
    index = place.report / "docs" / "index.html"
    links = re.findall(r'href="([^"]+)"', index.read_text(encoding="utf-8"))
    assert len(links) == 4 and all((index.parent / link.replace("%20", " ")).is_file() for link in links)


def test_the_page_shows_each_check_with_its_examples(place, tmp_path):
    data = recipe(MADE, "quarantine")
    place.run(write(tmp_path / "rows.csv", [*GOOD, *BAD.values()]), data)
    html = page(place.report, "rows as read")
    for check in (*SIMPLE, "long_text", "label_set", "class_count", "leakage_near"):
        assert f"{check}: every row is ok; the recipe says quarantine for any other" in html
    assert "rows.csv:155: 'donâ€™t know where it went' [late]: 'â€™' seems to be '’' in another encoding" in html
    assert "language" not in html


def given(folder: Path, train=GOOD, validation=(), test=()) -> str:
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        write(folder / f"{name}.csv", rows)
    return str(folder)


FRESH = [(f"{label} {word} question", label) for label in ASKS for word in ("alpha", "bravo", "charlie", "delta")]


def test_given_splits_are_kept_as_they_are(place, tmp_path):
    place.run(given(tmp_path / "set", validation=FRESH[::2], test=FRESH[1::2]), recipe(GIVEN, "fail"))
    data = load_clean(place.clean)
    assert [(text, data.labels[label]) for text, label in zip(data.train.texts, data.train.labels, strict=True)] == GOOD
    assert data.validation.texts == [text for text, _ in FRESH[::2]]
    assert data.test.texts == [text for text, _ in FRESH[1::2]]


def test_validation_cut_from_given_train(place, tmp_path):
    place.run(given(tmp_path / "set", test=FRESH), recipe({**GIVEN, "validation": 0.2}, "fail"))
    data = load_clean(place.clean)
    assert [len(split.texts) for split in (data.train, data.validation, data.test)] == [120, 30, 12]
    assert Counter(data.validation.labels) == {0: 10, 1: 10, 2: 10}


def test_leaks_leave_train_and_validation_but_never_test(place, tmp_path):
    close = GOOD[7][0] + "!"
    source = given(
        tmp_path / "set",
        train=[*GOOD, FRESH[0]],
        validation=[*FRESH[2::2], (FRESH[1][0].upper(), "late")],
        test=[*FRESH[1::2], FRESH[0], (close, GOOD[7][1])],
    )
    place.run(source, recipe(GIVEN, "quarantine"))
    found = {(row["check"], row["split"], row["text"]) for row in place.quarantine()}
    assert found == {
        ("leakage_exact", "train", FRESH[0][0]),
        ("leakage_near", "train", GOOD[7][0]),
        ("leakage_near", "validation", FRESH[1][0].upper()),
    }
    message = Place(tmp_path / "again").refused(source, recipe(GIVEN, "fail"))
    assert "leakage_exact: 1 row(s)" in message and "leakage_near: 2 row(s)" in message


def test_labels_that_train_lacks(place, tmp_path):
    source = given(tmp_path / "set", validation=FRESH[::2], test=[*FRESH[1::2], ("something else entirely", "new")])
    message = place.refused(source, recipe(GIVEN, "fail"))
    assert (
        "label_set: 1 row(s)" in message
        and "test.csv:8: 'something else entirely' [new]: no training row has the label 'new'" in message
    )
    place.run(source, recipe(GIVEN, "quarantine"))
    assert "new" not in load_clean(place.clean).labels
    assert not place.failed.exists(), "a success takes the report of the failure before it away"


def test_conflicts_and_a_label_outside_the_set(place, tmp_path):
    source = given(tmp_path / "set", train=[*GOOD, (FRESH[0][0], "size")], validation=FRESH[::2], test=FRESH[1::2])
    allowed = {"action": "quarantine", "allowed": ["late", "size"]}
    place.run(source, recipe(GIVEN, "quarantine", label_set=allowed))
    found = Counter((row["check"], row["split"]) for row in place.quarantine())
    assert found == {("conflicting_labels", "train"): 1, ("conflicting_labels", "validation"): 1} | {
        ("label_set", "train"): 50,
        ("label_set", "validation"): 2,
        ("label_set", "test"): 2,
    }
    assert load_clean(place.clean).labels == ["late", "size"]


def test_an_allowed_label_without_rows_fails(place, tmp_path):
    data = recipe(MADE, "fail", label_set={"action": "fail", "allowed": [*ASKS, "unheard"]})
    message = place.refused(write(tmp_path / "rows.csv", GOOD), data)
    assert "train: no row of class 'unheard', which label_set.allowed names" in message


@pytest.mark.parametrize("action", ["fail", "quarantine"])
def test_one_class_only(place, tmp_path, action):
    message = place.refused(write(tmp_path / "rows.csv", GOOD[:50]), recipe(MADE, action))
    assert "train: one class only, 'late'; a classifier needs rows of at least two" in message
    assert (place.failed / "report.json").is_file()


def test_nothing_left_after_quarantine(place, tmp_path):
    message = place.refused(write(tmp_path / "rows.csv", [("", "a"), ("", "b")]), recipe(MADE, "quarantine"))
    assert "train: no rows are left" in message and "test: no rows are left" in message
    assert len(place.quarantine(place.failed)) == 2


def test_a_class_too_small_to_cut(place, tmp_path):
    rows = [*GOOD, ("the first of its kind", "rare"), ("The first of its kind!", "rare"), ("quite another one", "rare")]
    message = place.refused(write(tmp_path / "rows.csv", rows), recipe(MADE, "fail"))
    assert "class_count: 3 row(s)" in message and "class 'rare' has 2 row(s) that are not near-duplicates" in message


def test_unlabelled_text_is_held_apart_from_held_out_rows(place, tmp_path):
    source = given(tmp_path / "set", validation=FRESH[::2], test=FRESH[1::2])
    lines = [
        "a new thought",
        "A new thought",
        "",
        FRESH[0][0],
        FRESH[1][0] + "??",
        GOOD[0][0],
        "a new thought",
        "another one",
    ]
    (tmp_path / "set" / "more.txt").write_text("\n".join(lines), encoding="utf-8")
    place.run(source, recipe(GIVEN, "fail", unlabelled="more.txt"))
    assert load_clean(place.clean).unlabelled == ["a new thought", "A new thought", "another one"]
    assert [(row["check"], row["line"]) for row in place.quarantine()] == [
        ("leakage_exact", "4"),
        ("leakage_near", "5"),
        ("duplicates", "6"),
        ("duplicates", "7"),
    ]
    assert pq.read_schema(place.clean / "unlabelled.parquet").names == ["text"]


def test_unlabelled_text_is_held_apart_from_rows_cut_for_holding_out(place, tmp_path):
    write(tmp_path / "set" / "rows.csv", GOOD)
    lines = [text + "??" for text, _ in GOOD]
    (tmp_path / "set" / "more.txt").write_text("\n".join(lines), encoding="utf-8")
    place.run(str(tmp_path / "set"), recipe({**MADE, "file": "rows.csv"}, "fail", unlabelled="more.txt"))
    data = load_clean(place.clean)
    assert Counter(data.unlabelled) == Counter(text + "??" for text in data.train.texts)
    assert Counter(row["check"] for row in place.quarantine()) == {"leakage_near": 60}


def test_language(place, tmp_path):
    rows = [*GOOD, ("Guten Tag, wo bleibt denn mein Paket, bitte?", "late")]
    data = recipe(MADE, "quarantine", language={"action": "quarantine", "expected": "en", "confidence": 0.9})
    place.run(write(tmp_path / "rows.csv", rows), data)
    assert [(row["check"], row["line"]) for row in place.quarantine()] == [("language", "152")]


def test_no_trace_is_left_in_the_temporary_folder(place, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    place.run(write(tmp_path / "rows.csv", GOOD), recipe(MADE, "fail"))
    assert list(temporary.iterdir()) == [] and tempfile.tempdir == str(temporary)


def test_the_stage_is_short():
    assert len(inspect.getsource(validate).splitlines()) <= 40


def test_command_line(tmp_path, monkeypatch):
    """Through `python -m pipelines`: exit code 3, one message, no traceback, nothing half-written; then it works."""
    import yaml

    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]["support-intents"]
    checks = recipe(MADE, "fail").checks.model_dump()
    params["data"] |= {
        "splits": MADE,
        "unlabelled": None,
        "text_column": "text",
        "label_column": "label",
        "checks": checks,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"models": {"tiny": params}}), encoding="utf-8")

    options = ["tiny", "--source", "rows.csv", "--clean", "build/data", "--report", "build/validation"]
    write(tmp_path / "rows.csv", [*GOOD, GOOD[0]])
    command, env = [sys.executable, "-m", "pipelines", "validate", *options], os.environ | {"PYTHONPATH": str(ROOT)}
    bad = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert bad.returncode == 3 and bad.stderr.startswith("DataError: rows.csv: the data does not pass"), bad
    assert "Traceback" not in bad.stderr and "build/validation.failed/docs/index.html" in bad.stderr
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["validation.failed"]
    write(tmp_path / "rows.csv", GOOD)
    monkeypatch.chdir(tmp_path)
    run("validate", options)
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["data", "validation"]


@pytest.mark.parametrize("name", ["banking77", "clinc150_oos"])
def test_public_sets(place, name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there: the public sets are not part of the project")
    data = recipe(
        GIVEN,
        "quarantine",
        long_text={"action": "quarantine", "max_chars": 1_000},
        leakage_near={"action": "quarantine", "similarity": 0.8},
    )
    place.run(str(SHARED / name), data)
    clean, report = load_clean(place.clean), json.loads((place.report / "report.json").read_text())
    read = sum(report["rows"]["read"].values())
    kept = sum(len(split.texts) for split in (clean.train, clean.validation, clean.test))
    assert read - kept == len(place.quarantine()) > 100
    assert not any(near_matches(clean.train.texts, clean.validation.texts + clean.test.texts, 0.8))
    assert all(row["split"] != "test" for row in place.quarantine() if row["check"].startswith("leakage"))
