"""Each check finds what it names and lets the rest be."""

from __future__ import annotations

import pytest

from pipelines.data import checks
from pipelines.data.language import detect, other_language
from pipelines.data.rows import Row
from pipelines.errors import DataError


def rows(*cells):
    """Rows from (split, text, label), one a line from line 2 of `<split>.csv`."""
    return {i: Row(split, f"{split}.csv", i + 2, text, label) for i, (split, text, label) in enumerate(cells)}


def train(*texts):
    return rows(*(("train", text, "a") for text in texts))


def test_empty_text():
    assert set(checks.empty_text(train("a", "", None, " \t\n", "NA", "\u2003"))) == {1, 2, 3, 5}


def test_long_text():
    assert checks.long_text(train("1234", "12345", None), 4) == {1: "5 characters, 4 are allowed"}


def test_missing_label():
    found = checks.missing_label(
        rows(*(("train", "x", label) for label in ("a", None, " ", "NaN", "nan", "null", "NA")))
    )
    assert set(found) == {1, 2, 3, 4}
    assert checks.missing_label(rows(("unlabelled", "x", None))) == {}


def test_forbidden_label():
    found = checks.forbidden_label(rows(("train", "x", "a"), ("test", "x", "A"), ("unlabelled", "x", None)), ["a", "b"])
    assert found == {1: "label 'A' is not in label_set.allowed"}


@pytest.mark.parametrize(
    "text",
    [
        "caf\ufffd",
        "bell\x07",
        "nul\x00",
        "escape\x1b[0m",
        "c1 \x93quoted\x94",
        "delete\x7f",
        "cafÃ©",
        "donâ€™t",
        "Â£5",
        "â‚¬20",
        *["Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ðŸ˜€ thanks", "æ—¥æœ¬", "Ã\xa0 bientÃ´t", "naÃ¯ve and plain"],
    ],
)
def test_encoding_damage(text):
    assert set(checks.encoding_damage(train("plain", text))) == {1}


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "naïve—yes",
        "CAFÉ’S",
        "«CAFÉ»",
        "voilà\xa0»",
        "“quoted”",
        "tab\tnew\nline\r\n",
        "привет",
        "日本語",
        "😀 thanks",
        "AÇÃO",
        *["É…", "5 € or £4", "Ångström", "Ünïcödé", "किताब", "ÀÉÎÕÜ", ""],
    ],
)
def test_undamaged_text(text):
    assert checks.encoding_damage(train(text)) == {}


def test_every_damaged_accent_of_western_languages_is_found():
    for letter in "àâäáãåçèéêëìíîïñòóôöõøùúûüýÿœæßÀÉÇÑÜŠŽ€£’“”–—…™":
        broken = bytes(letter, "utf-8").decode("cp1252", errors="replace")
        assert checks.encoding_damage(train(f"say {broken} here")), letter
        assert not checks.encoding_damage(train(f"say {letter} here")), letter


def test_conflicting_labels_cross_splits_and_take_every_row():
    found = checks.conflicting_labels(
        rows(
            ("train", "Hi  there", "a"),
            ("test", "Hi there ", "b"),
            ("train", "hi there", "c"),
            ("train", "Bye", "a"),
            ("test", "Bye", "a"),
        )
    )
    assert found == {
        0: "the same text stands under 'b' in test.csv:3",
        1: "the same text stands under 'a' in train.csv:2",
    }


def test_duplicates_keep_the_first_of_each_split():
    found = checks.duplicates(
        rows(
            ("train", "Hi", "a"),
            ("train", " Hi", "a"),
            ("test", "Hi", "a"),
            ("train", "Hi", "b"),
            ("unlabelled", "Hi", None),
            ("unlabelled", "x", None),
        )
    )
    assert found == {1: "repeats train.csv:2", 4: "stands with a label in train.csv:2"}


def test_composed_and_decomposed_accents_are_the_same_text():
    assert set(checks.duplicates(train("caf\u00e9", "cafe\u0301"))) == {1}


def test_leakage_never_takes_test_rows():
    found = checks.leakage_exact(
        rows(
            ("train", "in test", "a"),
            ("train", "in validation", "a"),
            ("validation", "in validation", "a"),
            ("validation", "in test", "a"),
            ("test", "in test", "a"),
            ("train", "nowhere", "a"),
            ("unlabelled", "in test", None),
        )
    )
    assert found == {
        0: "stands in test too: test.csv:6",
        1: "stands in validation too: validation.csv:4",
        3: "stands in test too: test.csv:6",
        6: "stands in test too: test.csv:6",
    }


def test_near_leakage_names_its_twin():
    text = "where is the parcel that I ordered last week"
    table = rows(("train", text, "a"), ("test", text + "?!", "a"), ("train", "a wholly different question", "a"))
    assert checks.leakage_near(table, 0.8) == {0: f"almost stands in test: test.csv:3 {text + '?!'!r}"}


def test_a_validation_row_that_leaks_takes_no_training_row_with_it():
    table = rows(("train", "abcdefgh", "a"), ("validation", "abcdefghij", "a"), ("test", "abcdefghijkl", "a"))
    assert set(checks.leakage_near(table, 0.7)) == {1}


def test_classes():
    table = rows(("train", "x", "a"), ("train", "y", "a"), ("train", "z", "b"), ("test", "w", "b"), ("test", "v", "c"))
    assert checks.unknown_label(table) == {4: "no training row has the label 'c'"}
    assert set(checks.small_class(table, 2)) == {2, 3, 4}
    assert checks.small_class(rows(("unlabelled", "x", None)), 2) == {}
    groups = {0: 0, 1: 0, 2: 1}
    assert set(checks.too_few_to_cut(table, groups, 1)) == set()
    assert set(checks.too_few_to_cut(table, groups, 2)) == {0, 1, 2}


def test_language():
    texts = [
        "Where is my parcel, please?",
        "Guten Tag, wo bleibt mein Paket?",
        "Je voudrais parler de mes vacances",
        "ok",
        "12345",
        "",
    ]
    found = other_language(train(*texts), "en", 0.9)
    assert set(found) == {1, 2} and "'de'" in found[1] and "'fr'" in found[2]


def test_language_that_the_detector_lacks():
    with pytest.raises(DataError, match=r"'xx' is unknown to the detector; it knows .*en"):
        detect(["x"], "xx")
