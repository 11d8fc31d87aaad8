"""Webhooks: what is signed, what a receiver refuses, and that every event arrives whatever the receiver does."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import InputTypeError, PolicyError, Registry, UnreachableError, UsageError, verify_webhook
from slm_registry.log.entries import Entry
from slm_registry.watching.webhooks import DELIVERY, SIGNATURE, Webhook, sign

from tests.registry.receiver import SECRET, receiving

BODY = b'{"op":"alias","seq":7}'
AT = 1_800_000_000


def headers(body: bytes = BODY, at: int = AT, secret: str = SECRET) -> dict[str, str]:
    return {SIGNATURE: sign(secret, body, at), "Content-Type": "application/json"}


def test_the_signature_is_the_documented_one() -> None:
    """Made here by hand, as a receiver in another language would."""
    import hashlib
    import hmac

    value = hmac.new(SECRET.encode(), b"1800000000." + BODY, hashlib.sha256).hexdigest()
    assert sign(SECRET, BODY, AT) == f"t=1800000000,v1={value}"


def test_what_is_signed_passes_within_the_window() -> None:
    for now in (AT, AT + 300, AT - 300):
        assert verify_webhook(SECRET, headers(), BODY, now=now) == {"op": "alias", "seq": 7}
    assert verify_webhook(SECRET, {SIGNATURE.lower(): headers()[SIGNATURE]}, BODY, now=AT)["seq"] == 7
    fresh = headers(at=int(time.time()))
    assert verify_webhook(SECRET, fresh, BODY)["seq"] == 7


@pytest.mark.parametrize("now", [AT + 301, AT - 301, AT + 10**9])
def test_a_replay_is_refused_after_the_window(now: float) -> None:
    with pytest.raises(PolicyError, match="the window is 300 s"):
        verify_webhook(SECRET, headers(), BODY, now=now)
    assert verify_webhook(SECRET, headers(), BODY, now=now, window=2 * 10**9)


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({}, BODY),
        ({SIGNATURE: ""}, BODY),
        ({SIGNATURE: "t=1800000000"}, BODY),
        ({SIGNATURE: headers()[SIGNATURE].upper()}, BODY),
        ({SIGNATURE: headers()[SIGNATURE] + ",v1=0"}, BODY),
        (headers(secret="another secret of tests"), BODY),
        (headers(), BODY + b" "),
        (headers(), b""),
        ({SIGNATURE: headers()[SIGNATURE].replace(str(AT), str(AT + 1))}, BODY),
        ({SIGNATURE: headers()[SIGNATURE].replace(str(AT), "0" + str(AT))}, BODY),
    ],
)
def test_what_is_not_signed_right_is_refused(given: dict[str, str], body: bytes) -> None:
    with pytest.raises(PolicyError):
        verify_webhook(SECRET, given, body, now=AT)


@given(value=st.text(max_size=100), body=st.binary(max_size=50))
def test_no_made_up_signature_passes(value: str, body: bytes) -> None:
    with pytest.raises(PolicyError):
        verify_webhook(SECRET, {SIGNATURE: value}, body, now=AT)


def test_wrong_use() -> None:
    with pytest.raises(InputTypeError, match="in bytes"):
        verify_webhook(SECRET, headers(), BODY.decode(), now=AT)  # type: ignore[arg-type]
    for secret in ("", "short", None):
        with pytest.raises(UsageError, match="16 characters"):
            verify_webhook(secret, headers(), BODY, now=AT)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="16 characters"):
            Webhook("http://127.0.0.1/", secret)  # type: ignore[arg-type]
    for url in (
        "",
        "ftp://x",
        "http://",
        "127.0.0.1",
        "http://u:p@x/",
        "http://x y/",
        "http://x:99999/",
        "http://x/\n",
    ):
        with pytest.raises(UsageError, match="give an http"):
            Webhook(url, SECRET)


@pytest.mark.parametrize("url", ["https://u:hunter2@x/", "u:hunter2@x/", "ftp://u:hunter2@x", "http://u:hunter2/@x"])
def test_an_address_with_a_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        Webhook(url, SECRET)
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def entry(folder_registry: Registry, bundle: Path) -> Entry:
    folder_registry.publish(bundle, "m", lineage={}, reason="größer")
    return folder_registry.log("m")[0]


@pytest.mark.parametrize("fault", ["500", "503", "404", "302", "hang", "drip", "reset", "close"])
def test_whatever_the_receiver_does_it_is_sent_again(entry: Entry, fault: str, caplog: Any) -> None:
    waits: list[float] = []
    with receiving() as receiver:
        receiver.script = [fault] * 3
        start = time.monotonic()
        Webhook(receiver.url, SECRET, timeout=0.3, sleep=waits.append).deliver(entry)
        assert time.monotonic() - start < 10
        assert receiver.tried == [fault] * 3 + ["ok"]
        assert receiver.events == [entry.as_dict()]
    assert len(waits) == 3
    for wait, full in zip(waits, (1, 2, 4), strict=True):
        assert full / 2 <= wait <= full
    assert len(caplog.records) == 3
    assert "entry 1 of m" in caplog.text
    assert "team=a" not in caplog.text


def test_the_wait_is_bounded_and_so_are_the_attempts(entry: Entry) -> None:
    waits: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    webhook = Webhook(f"http://127.0.0.1:{port}/", SECRET, sleep=waits.append)
    with pytest.raises(UnreachableError, match=r"ConnectionRefusedError.*given up after 12 attempts"):
        webhook.deliver(entry, attempts=12)
    assert len(waits) == 11
    assert max(waits) <= 60


def test_each_attempt_is_signed_anew(entry: Entry, monkeypatch: Any) -> None:
    """A receiver's window counts from the attempt, not from the event."""
    sent: list[dict[str, str]] = []
    clock = iter([100.0, 3700.9])

    class Connection:
        sock = None

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def connect(self) -> None: ...
        def close(self) -> None: ...

        def request(self, method: str, target: str, body: bytes, given: dict[str, str]) -> None:
            sent.append({**given, "body": body.decode()})

        def getresponse(self) -> Any:
            return type("Answer", (), {"status": 500 if len(sent) == 1 else 200})

    monkeypatch.setattr("slm_registry.watching.webhooks.http.client.HTTPConnection", Connection)
    Webhook("http://receiver.test/", SECRET, sleep=lambda _: None, clock=lambda: next(clock)).deliver(entry)
    first, second = sent
    assert first[DELIVERY] == second[DELIVERY] == json.loads(first["body"])["digest"]
    assert first[SIGNATURE].startswith("t=100,")
    assert second[SIGNATURE].startswith("t=3700,")
