"""Progress of long work: a bar with an estimate in a terminal, plain lines with one elsewhere. Of processes that train together the first tells it."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from pipelines.ranks import ranks

#: Seconds between plain lines.
LINE_INTERVAL = 10.0


class Progress:
    """Counts steps of one named piece of work, of which some may have been done before. Use as a context manager."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self._name, self._total, self._done, self._before = name, total, done, done
        self._started = self._printed = time.monotonic()
        self._silent = ranks().index > 0
        self._bar = _bar() if Console(stderr=True).is_interactive and not self._silent else None
        self._task = self._bar.add_task(name, total=total, completed=done) if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        self._done += steps
        if self._bar and self._task is not None:
            self._bar.advance(self._task, steps)
        elif time.monotonic() - self._printed >= LINE_INTERVAL:
            self._printed = time.monotonic()
            each = (self._printed - self._started) / (self._done - self._before)
            left = each * (self._total - self._done)
            self.note(f"{self._done}/{self._total}, about {left:.0f} s left")

    def note(self, text: str) -> None:
        """Print one line about the work."""
        if self._bar:
            self._bar.console.print(f"{self._name}: {text}", highlight=False)
        elif not self._silent:
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)


def _bar() -> RichProgress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return RichProgress(*columns, console=Console(stderr=True), transient=True)
