"""What may be printed: text without escapes, addresses without secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry.plumbing.printable import address, clean, clean_lines


@given(st.text())
def test_cleaned_text_is_one_harmless_line(text: str) -> None:
    found = clean(text)
    assert len(found) == len(text)
    assert all(letter.isprintable() or letter.isspace() for letter in found)
    assert len(found.splitlines()) <= 1
    assert clean_lines(text).count("\n") == text.count("\n")


def test_what_is_kept_and_what_is_not() -> None:
    assert clean("größer 🦆 a\u00a0b\u3000c") == "größer 🦆 a\u00a0b\u3000c"
    assert clean("\x1b[31m\x9b\r\n\t\u202e\u2028\ud800") == "?[31m???????"
    assert clean_lines("a\tb\x07\nc") == "a\tb?\nc"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org:8443/hook/token?key=1", "https://example.org:8443"),
        ("https://user:secret@example.org/hook", "https://example.org"),
        ("https://user:sec/ret@example.org/hook", "https://..."),
        ("http://[::1]:80/hook", "http://[::1]:80"),
        ("http://[::1/hook", "http://..."),
        ("s3://bucket/prefix?endpoint_url=http://user:secret@host", "s3://bucket"),
        ("user:secret@example.org", "example.org"),
        ("", ""),
    ],
)
def test_an_address_is_shown_as_far_as_its_host(url: str, shown: str) -> None:
    assert address(url) == shown
