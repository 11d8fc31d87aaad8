"""Time: when a request may begin, how long a failed one waits, and when to give up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pipelines.config import Retries

Result = TypeVar("Result")

#: Seconds of the first wait, which doubles with every try, and of the longest. Retry-After may ask for more.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0


class Stopped(Exception):
    """The work is ending: another request failed for good, or the process was told to stop."""


class Failure(Exception):
    """A try that came to nothing and may be repeated.

    `after` is how many seconds the endpoint wants to be left alone; `charged` says that it may have written an answer.
    """

    def __init__(self, message: str, *, after: float | None = None, charged: bool = False) -> None:
        super().__init__(message)
        self.after, self.charged = after, charged


class GivenUp(Exception):
    """The last of the tries that a request has."""


class Clock:
    """The time, and sleep that ends when the work does."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def now(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; raises Stopped once `stop` was called."""
        if self._ended.wait(max(0.0, seconds)):
            raise Stopped

    def stop(self) -> None:
        """Wake all sleepers and let none sleep again."""
        self._ended.set()


class Pace:
    """Lets requests begin at an even rate, and none while the endpoint wants to be left alone. For many threads."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._gap, self._clock, self._lock = 60.0 / per_minute, clock, threading.Lock()
        self._free = self._held = clock.now()

    def wait(self) -> None:
        """Return when a request may begin. Raises Stopped."""
        while True:
            with self._lock:
                now = self._clock.now()
                mine = max(self._free, self._held, now)
                self._free = mine + self._gap
            self._clock.sleep(mine - now)
            with self._lock:
                if self._held <= mine:
                    return

    def hold(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        with self._lock:
            self._held = max(self._held, self._clock.now() + seconds)


def persist(
    attempt: Callable[[], Result],
    failed: Callable[[Failure], None],
    limits: Retries,
    clock: Clock,
    draw: Callable[[], float] = random.random,
) -> Result:
    """What `attempt` returns, tried again after each Failure: exponential back-off with jitter, within the limits.

    `failed` hears of each. `draw` gives numbers in [0, 1). Raises GivenUp, Stopped, and whatever else `attempt` does.
    """
    deadline = float("inf")
    for number in range(1, limits.tries + 1):
        try:
            return attempt()
        except Failure as failure:
            failed(failure)
            deadline = min(deadline, clock.now() + limits.seconds)
            wait = _wait(number, failure.after, draw())
            if number == limits.tries or clock.now() + wait > deadline:
                raise GivenUp(_last_words(failure, number, limits, wait)) from failure
            clock.sleep(wait)
    raise AssertionError("tries is at least 1")


def _wait(number: int, after: float | None, drawn: float) -> float:
    """Seconds to wait after the `number`-th failure."""
    doubled: float = FIRST_WAIT * 2.0 ** min(number - 1, 30)
    return max(after or 0.0, min(LONGEST_WAIT, doubled) * (0.5 + drawn / 2))


def _last_words(failure: Failure, number: int, limits: Retries, wait: float) -> str:
    asked = f", and asks to be left alone for {failure.after:.0f} s" if failure.after else ""
    if number == limits.tries:
        return f"{failure}{asked}, in the last of {number} tries (teach.retries.tries)"
    return f"{failure}{asked}; a wait of {wait:.0f} s would pass teach.retries.seconds ({limits.seconds:g})"


def seconds_of(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, as seconds from now; None where there is none that can be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        then = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    zoned = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
