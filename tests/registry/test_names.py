"""Names, versions, references and paths: what is taken, and that nothing else is."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import UsageError, names

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,127}", fullmatch=True)
NUMBERS = st.integers(0, 999_999_999)
VERSIONS = st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS)
DIGESTS = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(st.text(max_size=140))
def test_only_the_pattern_is_a_name(text: str) -> None:
    allowed = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,127}", text, re.ASCII) is not None
    if allowed:
        assert names.model_name(text) == text
    else:
        with pytest.raises(UsageError):
            names.model_name(text)


@given(NAMES, VERSIONS, DIGESTS)
def test_references_read_back(name: str, version: str, digest: str) -> None:
    assert names.parse_ref(name) == names.Ref(name)
    assert names.parse_ref(f"{name}@{version}").version == version
    assert names.parse_ref(f"{name}@{digest}").digest == digest
    for selector in (version, digest, "production"):
        assert str(names.parse_ref(f"{name}@{selector}")) == f"{name}@{selector}"


@given(st.text(max_size=200))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        ref = names.parse_ref(text)
    except UsageError as error:
        assert len(str(error)) < 400
    else:
        assert str(ref) == text


@given(
    st.one_of(VERSIONS, DIGESTS, NUMBERS.map(str), VERSIONS.map("v{}".format), st.sampled_from(["1.x", "v2", "3.1"]))
)
def test_no_alias_looks_like_a_version_or_a_digest(text: str) -> None:
    with pytest.raises(UsageError):
        names.alias_name(text)


@pytest.mark.parametrize("alias", ["production", "candidate", "staging", "blue-2", "2024-11-canary", "team_a.best"])
def test_words_are_aliases(alias: str) -> None:
    assert names.alias_name(alias) == alias


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_versions_order_as_their_numbers(left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    as_text = ["{}.{}.{}".format(*numbers) for numbers in (left, right)]
    assert (names.version_key(as_text[0]) < names.version_key(as_text[1])) == (left < right)


@given(VERSIONS.filter(lambda version: not version.endswith(".999999999")))
def test_the_next_patch_is_higher(version: str) -> None:
    assert names.version_key(names.next_patch(version)) > names.version_key(version)
    assert names.next_patch(None) == "1.0.0"


@pytest.mark.parametrize(
    "text", ["1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-rc", "1.2.x", "", "1.2.3\n", "١.2.3", None, 1]
)
def test_what_is_no_version(text: object) -> None:
    with pytest.raises(UsageError):
        names.version_key(text)  # type: ignore[arg-type]


@given(st.text(alphabet=st.sampled_from("ab./\\:\0é \ne\u0301\u202e\ud800"), max_size=20))
def test_a_safe_path_stays_below(path: str) -> None:
    try:
        names.safe_path(path)
    except UsageError:
        return
    parts = PurePosixPath(path).parts
    assert parts
    assert "/".join(parts) == path
    assert ".." not in parts
    assert not path.startswith("/")
    assert not set(path) & set("\\:\0\n\u202e\ud800")


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/../b",
        "a/..",
        "C:a",
        "a\\b",
        "a\0",
        "\n",
        "x" * 256,
        "a/" * 600 + "a",
    ],
)
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(UsageError):
        names.safe_path(path)


@pytest.mark.parametrize(
    "paths",
    [
        ("Config.json", "config.json"),
        ("caf\u00e9.md", "cafe\u0301.md"),
        ("stra\u00dfe", "STRASSE"),
        ("a", "a/b"),
        ("A", "a/b"),
        ("a/B/c", "a/b"),
        ("x", "x"),
    ],
)
def test_paths_that_are_one_file_somewhere(paths: tuple[str, str]) -> None:
    with pytest.raises(UsageError):
        names.safe_paths(paths)
    with pytest.raises(UsageError):
        names.safe_paths(reversed(paths))


@given(st.lists(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}", fullmatch=True), max_size=8))
def test_a_set_of_paths_is_refused_just_where_two_meet(paths: list[str]) -> None:
    meet = len(set(paths)) < len(paths) or any(other.startswith(path + "/") for path in paths for other in paths)
    if meet:
        with pytest.raises(UsageError):
            names.safe_paths(paths)
    else:
        names.safe_paths(paths)


def test_folding_is_stable() -> None:
    for text in ("\u00c9", "e\u0301", "\u0130", "\ufb01"):
        folded = names.fold_path(text)
        assert names.fold_path(folded) == folded
        assert unicodedata.is_normalized("NFC", folded)
