"""Ranges of versions: what is taken, and that each comparison means what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import NotFoundError, Registry, UsageError, names
from slm_registry.ranges import is_range, parse_range

SMALL = st.integers(0, 3)
KEYS = st.tuples(SMALL, SMALL, SMALL)
MEANING = {
    ">=": lambda key, bound: key >= bound,
    ">": lambda key, bound: key > bound,
    "<=": lambda key, bound: key <= bound,
    "<": lambda key, bound: key < bound,
    "==": lambda key, bound: key == bound,
    "!=": lambda key, bound: key != bound,
}


@given(st.lists(st.tuples(st.sampled_from(sorted(MEANING)), KEYS), min_size=1, max_size=4), KEYS)
def test_every_comparison_must_hold(parts: list[tuple[str, tuple[int, int, int]]], key: tuple[int, int, int]) -> None:
    text = ",".join(sign + ".".join(map(str, bound)) for sign, bound in parts)
    assert parse_range(text).allows(key) == all(MEANING[sign](key, bound) for sign, bound in parts)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2,<2", ["1.2.0", "1.999.0"], ["1.1.9", "2.0.0", "2.0.1"]),
        (">1", ["1.0.1", "2.0.0"], ["1.0.0"]),
        ("<=1.2", ["1.2.0", "0.0.1"], ["1.2.1"]),
        ("==1", ["1.0.0"], ["1.0.1", "1.1.0"]),
        ("!=1.0.0", ["1.0.1"], ["1.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.2.2", "1.3.0"]),
        ("~1.2", ["1.2.0", "1.2.9"], ["1.1.9", "1.3.0"]),
        ("~1", ["1.0.0", "1.9.9"], ["0.9.9", "2.0.0"]),
        ("~1,!=1.4.0", ["1.3.0"], ["1.4.0", "2.0.0"]),
    ],
)
def test_what_is_in_a_range(text: str, inside: list[str], outside: list[str]) -> None:
    wanted = parse_range(text)
    assert all(wanted.allows(names.version_key(version)) for version in inside)
    assert not any(wanted.allows(names.version_key(version)) for version in outside)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ">",
        ">=",
        ">=1.",
        ">=1.2.3.4",
        ">= 1",
        ">=1, <2",
        ">=1,,<2",
        ">=1,",
        "=1",
        "=>1",
        "^1",
        ">=01",
        ">=v1",
        "1",
        ",".join([">=1"] * 9),
        ">=" + "1" * 300,
        ">=١",
    ],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="range"):
        parse_range(text)
    if is_range(text):
        with pytest.raises(UsageError, match="range"):
            names.parse_ref(f"m@{text}")


@given(st.text(alphabet="<>=!~,.0123456789 x", max_size=20))
def test_any_text_is_a_range_or_a_usage_error(text: str) -> None:
    try:
        wanted = parse_range(text)
    except UsageError:
        return
    assert str(names.parse_ref(f"m@{text}")) == f"m@{text}"
    assert wanted.parts


def test_the_highest_match_that_is_not_yanked(registry: Registry, bundle: Path) -> None:
    for version in ("1.2.0", "1.9.0", "1.10.0", "2.0.0"):
        registry.publish(bundle, "m", version=version, lineage={})
    assert registry.resolve("m@>=1.2,<2").version == "1.10.0"
    registry.yank("m", "1.10.0")
    registry.yank("m", "2.0.0")
    assert registry.resolve("m@>=1.2,<2").version == "1.9.0"
    assert registry.resolve("m@>=1").version == "1.9.0"
    for text in ("==1.10.0", ">2", "<1"):
        with pytest.raises(NotFoundError, match=r"not yanked; the newest is 1\.9\.0"):
            registry.resolve(f"m@{text}")
