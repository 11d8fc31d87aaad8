"""Telling a web address what happens to a model: signed, retried, at least once, in order; and the receiver's check.

A delivery is one POST of an event's JSON with two headers:

    X-SLM-Registry-Delivery   the digest of the log entry: the same for every attempt, so a receiver can drop repeats
    X-SLM-Registry-Signature  t=<Unix seconds of this attempt>,v1=<hex HMAC-SHA256 of "<t>.<body>" under the secret>
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from slm_registry.errors import InputTypeError, PolicyError, UnreachableError, UsageError
from slm_registry.log.entries import Entry
from slm_registry.plumbing.jsonio import canonical, parse_object
from slm_registry.plumbing.printable import address, clean

logger = logging.getLogger("slm_registry")
DELIVERY = "X-SLM-Registry-Delivery"
SIGNATURE = "X-SLM-Registry-Signature"
# How old, or how far ahead, a signature's time may be for a receiver: the window in which a copy could be replayed.
REPLAY_SECONDS = 300
SHORTEST_SECRET = 16
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


def sign(secret: str, body: bytes, at: int) -> str:
    """The value of the signature header for a body sent at `at`, Unix seconds."""
    mac = hmac.new(_key(secret), str(at).encode() + b"." + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, window: float = REPLAY_SECONDS, now: float | None = None
) -> dict[str, Any]:
    """The event in a delivery, if the holder of `secret` signed it within `window` seconds of `now`.

    Within the window a copy of a delivery passes too: drop what has the `digest` of an event that was dealt with.
    `body` is the request's bytes as they came. Raises PolicyError where the signature is missing, wrong or too old.
    """
    if not isinstance(body, bytes | bytearray):
        raise InputTypeError(f"the body as it came, in bytes, was expected, found {type(body).__name__}")
    found = next((value for name, value in headers.items() if name.lower() == SIGNATURE.lower()), None)
    match = _SIGNATURE.fullmatch(found.strip()) if found is not None else None
    if match is None:
        raise PolicyError(f"the delivery has no readable {SIGNATURE} header; refuse it")
    at = int(match[1])
    if not hmac.compare_digest(sign(secret, bytes(body), at), match[0]):
        raise PolicyError(f"the {SIGNATURE} header was not made with this secret for this body; refuse the delivery")
    age = (time.time() if now is None else now) - at
    if abs(age) > window:
        raise PolicyError(f"the delivery was signed {age:.0f} s ago, the window is {window:.0f} s; check both clocks")
    return parse_object(bytes(body), "the delivery's body")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Delivers events to one address. `timeout` bounds a whole attempt, in seconds."""

    url: str
    secret: str
    timeout: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        _parts(self.url)
        _key(self.secret)

    def deliver(self, entry: Entry, attempts: int | None = None) -> None:
        """Send one event until the receiver answers 2xx, waiting longer after each failure, a minute at most.

        With `attempts`, raises UnreachableError after so many.
        """
        body, tried = canonical(entry.as_dict()), 0
        while True:
            problem = self._attempt(body, entry.digest)
            if problem is None:
                return
            tried += 1
            # What the other side answered may stand in it.
            where = clean(f"webhook {address(self.url)}: entry {entry.seq} of {entry.model}: {problem}")
            if tried == attempts:
                raise UnreachableError(f"{where}; given up after {tried} attempts, the next run sends it again")
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(tried - 1, 10)) * random.uniform(0.5, 1.0)
            logger.warning("%s; attempt %d comes in %.1f s", where, tried + 1, wait)
            self.sleep(wait)

    def _attempt(self, body: bytes, delivery: str) -> str | None:
        """Send once; what went wrong, or None. A redirect is not followed: it is no success."""
        parts = _parts(self.url)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "slm-registry",
            DELIVERY: delivery,
            SIGNATURE: sign(self.secret, body, int(self.clock())),
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = _connection(parts, self.timeout)
        try:
            connection.connect()
            # The connection's own time-out starts anew with every byte that a slow receiver sends.
            with _deadline(connection, self.timeout) as passed:
                connection.request("POST", target, body, headers)
                status = connection.getresponse().status
            if passed.is_set():
                return f"did not answer within {self.timeout:g} s"
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        finally:
            connection.close()
        return None if 200 <= status < 300 else f"answered {status}"


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """Cut a connection after so many seconds, whatever it is at; the event tells that it was cut."""
    passed = threading.Event()
    timer = threading.Timer(seconds, _cut, (connection.sock, passed))
    timer.daemon = True
    timer.start()
    try:
        yield passed
    finally:
        timer.cancel()


def _cut(connected: socket.socket, passed: threading.Event) -> None:
    passed.set()
    # It may be closed by now, which is as good.
    with contextlib.suppress(OSError):
        # Not TLS's own shutdown, which would talk to the other side.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, parts.port, timeout=timeout)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            f"webhook {address(url)!r}: give an http:// or https:// address, without a user or blanks in it"
        )
    return parts


def _key(secret: str) -> bytes:
    if not isinstance(secret, str) or len(secret) < SHORTEST_SECRET:
        raise UsageError(f"the webhook's secret is missing or too short; use {SHORTEST_SECRET} characters or more")
    return secret.encode("utf-8", "surrogateescape")
