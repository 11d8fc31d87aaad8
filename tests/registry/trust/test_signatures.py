"""Signatures: one form, for one version of one model, by one key, until one day."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import ConflictError, CorruptError, UsageError
from slm_registry.plumbing.jsonio import canonical
from slm_registry.stores.base import Store
from slm_registry.trust.keys import PrivateKey, PublicKey
from slm_registry.trust.signatures import (
    MAX_SIGNATURE,
    Subject,
    encode_signature,
    parse_day,
    problem_of,
    put_signature,
    signature_key,
)

from tests.registry.recording import RecordingStore
from tests.registry.trusting import make_pair

SUBJECT = Subject("m", "1.0.0", "sha256:" + "ab" * 32)
TODAY = datetime.date(2026, 6, 1)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return make_pair(tmp_path_factory.mktemp("keys"), "ci").key


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return make_pair(tmp_path_factory.mktemp("keys"), "other").key


def problem(data: bytes, key: PrivateKey, subject: Subject = SUBJECT, today: datetime.date = TODAY) -> str | None:
    return problem_of(data, key.public, subject, today)


def test_it_holds_for_what_was_signed_and_for_nothing_else(key: PrivateKey, other: PrivateKey) -> None:
    data = encode_signature(key, SUBJECT)
    assert encode_signature(key, SUBJECT) == data
    assert len(data) < MAX_SIGNATURE
    assert problem(data, key) is None
    for replayed in (
        Subject("n", "1.0.0", SUBJECT.manifest),
        Subject("m", "1.0.1", SUBJECT.manifest),
        Subject("m", "1.0.0", "sha256:" + "cd" * 32),
    ):
        assert "it was made for m@1.0.0" in str(problem(data, key, replayed))
    assert "it was made for" in str(problem(data, other))


def test_a_statement_of_mine_with_a_signature_of_another(key: PrivateKey, other: PrivateKey) -> None:
    value = json.loads(encode_signature(key, SUBJECT))
    value["signature"] = json.loads(encode_signature(other, SUBJECT))["signature"]
    assert "does not verify" in str(problem(canonical(value), key))
    # The statement alone, without the words before it, is not what is signed.
    value["signature"] = key.sign(canonical(value["statement"])).hex()
    assert "does not verify" in str(problem(canonical(value), key))


def test_the_last_day(key: PrivateKey) -> None:
    data = encode_signature(key, SUBJECT, "2026-06-01")
    assert problem(data, key) is None
    assert "expired on 2026-06-01" in str(problem(data, key, today=datetime.date(2026, 6, 2)))
    # Taking the last day out, or moving it, is an alteration.
    for expires in (None, "2030-01-01"):
        value = json.loads(data)
        value["statement"]["expires"] = expires
        assert "does not verify" in str(problem(canonical(value), key, today=datetime.date(2026, 6, 2)))
    for wrong in ("2026-6-1", "2026-02-30", "20260601", "tomorrow", "2026-06-01T00:00:00"):
        with pytest.raises(UsageError, match="not a day"):
            encode_signature(key, SUBJECT, wrong)
        with pytest.raises(UsageError):
            parse_day(wrong, "day")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("format", 2, "format 2"),
        ("format", True, "malformed"),
        ("format", 0, "format 0"),
        ("algorithm", "none", "'none' is unknown"),
        ("algorithm", "", "unknown"),
        ("algorithm", None, "malformed"),
        ("expires", 5, "malformed"),
        ("expires", "never", "malformed"),
        ("model", ["m"], "malformed"),
        ("extra", 1, "malformed"),
    ],
)
def test_another_statement_even_if_signed(key: PrivateKey, field: str, value: Any, complaint: str) -> None:
    statement = json.loads(encode_signature(key, SUBJECT))["statement"] | {field: value}
    signature = key.sign(b"slm-registry signature 1\n" + canonical(statement)).hex()
    assert complaint in str(problem(canonical({"statement": statement, "signature": signature}), key))


def test_every_bit_counts(key: PrivateKey) -> None:
    data = bytearray(encode_signature(key, SUBJECT, "2030-01-01"))
    for position in range(len(data) * 8):
        data[position // 8] ^= 1 << position % 8
        assert problem(bytes(data), key) is not None
        data[position // 8] ^= 1 << position % 8
    assert problem(bytes(data), key) is None


def test_one_form_only(key: PrivateKey) -> None:
    data = encode_signature(key, SUBJECT)
    value = json.loads(data)
    upper = {**value, "signature": value["signature"].upper()}
    for form in (
        data + b"\n",
        json.dumps(value).encode(),
        canonical(upper),
        data[:-1],
        data * 2,
        b"\xef\xbb\xbf" + data,
    ):
        assert problem(form, key) is not None
    assert "more than" in str(problem(b" " * (MAX_SIGNATURE + 1), key))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(canonical))
def test_any_bytes_are_a_problem_and_no_crash(data: bytes) -> None:
    assert problem_of(data, PublicKey("x", bytes(31) + b"\x05"), SUBJECT, TODAY) is not None


def test_filed_once(store: Store, key: PrivateKey) -> None:
    recorded = RecordingStore(store)
    place = signature_key(SUBJECT.manifest, key.public.id)
    assert put_signature(recorded, key, SUBJECT)
    assert recorded.named("create") == [(place,)]
    before = store.get(place, MAX_SIGNATURE)
    assert not put_signature(recorded, key, SUBJECT, "2099-01-01")
    assert store.get(place, MAX_SIGNATURE) == before
    assert recorded.named("put") == []
    assert store.children(f"signatures/{'ab' * 32}") == [f"{key.public.id}.json"]


@pytest.mark.parametrize("worthless", ["garbage", "long", "expired", "replayed", "wrong key"])
def test_what_is_worth_nothing_is_replaced(store: Store, key: PrivateKey, other: PrivateKey, worthless: str) -> None:
    stranger = Subject("n", "1.0.0", SUBJECT.manifest)
    held = {
        "garbage": b"{}",
        "long": b"x" * (MAX_SIGNATURE + 1),
        "expired": encode_signature(key, SUBJECT, "2020-01-01"),
        "replayed": encode_signature(key, stranger),
        "wrong key": encode_signature(other, SUBJECT),
    }[worthless]
    place = signature_key(SUBJECT.manifest, key.public.id)
    store.put(place, held)
    assert put_signature(store, key, SUBJECT)
    assert problem(store.get(place, MAX_SIGNATURE) or b"", key) is None


def test_a_signature_that_would_never_hold_is_not_made(store: Store, key: PrivateKey) -> None:
    with pytest.raises(UsageError, match="expired on 2020-01-01"):
        put_signature(store, key, SUBJECT, "2020-01-01")
    assert store.children("signatures") == []


@pytest.mark.parametrize("answer", [None, b"{}"])
def test_a_store_that_does_not_keep_it(
    tmp_path: Path, key: PrivateKey, store: Store, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    def get(_: str, __: int) -> bytes | None:
        return answer

    monkeypatch.setattr(store, "get", get)
    with pytest.raises(ConflictError, match="does not hold the signature"):
        put_signature(store, key, SUBJECT)


def test_too_long_is_not_read(store: Store, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    sound: Callable[[str, int], bytes | None] = store.get

    def get(name: str, limit: int) -> bytes | None:
        asked.append(limit)
        return sound(name, limit)

    monkeypatch.setattr(store, "get", get)
    put_signature(store, key, SUBJECT)
    assert set(asked) == {MAX_SIGNATURE}
    with pytest.raises(CorruptError, match="4096"):
        store.put("signatures/x.json", b"x" * 5000)
        store.get("signatures/x.json", MAX_SIGNATURE)
