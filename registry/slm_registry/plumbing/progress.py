"""How far a transfer has come: nothing in the library, a bar or plain lines on the command line."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from slm_registry.plumbing.printable import size_text

Moved = Callable[[int], None]
_QUIET_SECONDS = 2.0
_LINE_SECONDS = 10.0
_BAR_SECONDS = 0.1
_WIDTH = 30


def ignore(count: int) -> None:
    """Nobody wants to know."""


class Progress(Protocol):
    """Shows transfers. `task` gives what is to be called, from any thread, with each number of bytes that moved."""

    def task(self, what: str, total: int) -> contextlib.AbstractContextManager[Moved]: ...


class Silent:
    """Shows nothing."""

    @contextlib.contextmanager
    def task(self, what: str, total: int) -> Iterator[Moved]:
        yield ignore


class TextProgress:
    """A bar where `stream` is a terminal, else a line now and then; nothing for what is over within two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    @contextlib.contextmanager
    def task(self, what: str, total: int) -> Iterator[Moved]:
        shown = _Shown(what, total, self._stream, self._clock)
        try:
            yield shown.add
        finally:
            shown.end()


class _Shown:
    """One transfer on a stream."""

    def __init__(self, what: str, total: int, stream: TextIO, clock: Callable[[], float]) -> None:
        self._what, self._total, self._stream, self._clock = what, total, stream, clock
        self._bar = stream.isatty()
        self._start = clock()
        self._next = self._start + _QUIET_SECONDS
        self._done = 0
        self._wrote = False
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._clock() >= self._next:
                self._write()
                self._next = self._clock() + (_BAR_SECONDS if self._bar else _LINE_SECONDS)

    def end(self) -> None:
        with self._lock:
            if self._wrote:
                self._write()
                self._stream.write("\n" if self._bar else "")
                self._stream.flush()

    def _write(self) -> None:
        self._wrote = True
        share = min(1.0, self._done / self._total) if self._total else 1.0
        speed = self._done / max(self._clock() - self._start, 1e-6)
        words = f"{share:4.0%} of {size_text(self._total)}, {size_text(int(speed))}/s"
        if self._bar:
            bar = "#" * int(share * _WIDTH)
            self._stream.write(f"\r{self._what} [{bar:<{_WIDTH}}] {words}\x1b[K")
        else:
            self._stream.write(f"{self._what}: {words.strip()}\n")
        self._stream.flush()
