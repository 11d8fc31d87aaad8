"""The model behind a reference, exchanged while it is in use when the reference comes to mean another version."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slm_registry import names
from slm_registry.client import Registry
from slm_registry.errors import CorruptError, UnreachableError, UsageError
from slm_registry.finding.records import Resolved
from slm_registry.plumbing.printable import clean
from slm_registry.runtime.model import Model
from slm_registry.serving.runner import Runner
from slm_registry.watching.events import Feed

logger = logging.getLogger("slm_registry")
_LONGEST_WAIT = 60.0
# Signatures expire and keys are revoked without any entry in the log, so the gate is asked again after so many seconds:
# soon against last days, which are days, and seldom against looks, which come every few seconds and cost less.
_ASK_AGAIN = 300.0


@dataclass(slots=True, eq=False)
class Held:
    """A model in use: what it is, and how many requests are at it."""

    resolved: Resolved
    runner: Runner
    users: int = 0
    retired: bool = False


@dataclass(slots=True)
class Status:
    """What the exchange has to tell: when the reference was last looked up (UTC), and how the exchanges went."""

    as_of: datetime.datetime
    reloads: int = 0
    failures: int = 0
    problem: str | None = None
    in_a_row: int = 0


class LiveModel:
    """Follows one reference. To be used on one event loop; loading and looking happen on other threads.

    A request keeps the model that it began with; the old one is closed when its last request ends. Where the new
    version cannot be loaded or cannot predict, the old one goes on and `status.problem` says why.
    """

    def __init__(
        self,
        registry: Registry,
        ref: str,
        *,
        load: Callable[[str], Model],
        make_runner: Callable[[Model], Runner],
        poll: float,
    ) -> None:
        self.ref = ref
        self._registry, self._load, self._make_runner, self._poll = registry, load, make_runner, poll
        # The position comes first: what is appended between the two is looked at again, not overlooked.
        self._feed = Feed.from_now(registry.store, names.parse_ref(ref).model)
        self.status = Status(_now())
        self._asked = time.monotonic()
        self.task: str | None = None
        self._current = self._ready()

    @property
    def resolved(self) -> Resolved:
        """What new requests are answered by."""
        return self._current.resolved

    @contextlib.contextmanager
    def use(self) -> Iterator[Held]:
        """The current model, kept open meanwhile."""
        held = self._current
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            _close_if_done(held)

    async def follow(self) -> None:
        """Look for ever, every `poll` seconds; after failures less often."""
        while True:
            await asyncio.sleep(min(_LONGEST_WAIT, self._poll * 2 ** min(self.status.in_a_row, 10)))
            await self.look()

    async def look(self) -> None:
        """Look once, and exchange the model where the reference means another version."""
        try:
            await self._exchange()
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Whatever it is, the model that serves goes on, and so does the looking.
            self.status.in_a_row += 1
            self.status.failures += 1
            self.status.problem = clean(" ".join(str(error).split())) or type(error).__name__
            logger.warning("%s goes on with %s: %s", self.ref, self.resolved.version, self.status.problem)
        else:
            self.status.in_a_row = 0
            self.status.problem = None

    async def _exchange(self) -> None:
        at = _now()
        moved, due = await asyncio.to_thread(self._moved), time.monotonic() - self._asked >= _ASK_AGAIN
        if not moved and not due and self.status.problem is None:
            self.status.as_of = at
            return
        resolved = await asyncio.to_thread(self._permitted)
        _check_fresh(resolved, at)
        self.status.as_of, self._asked = at, time.monotonic()
        if resolved != self.resolved:
            new = await asyncio.to_thread(self._ready)
            try:
                _check_fresh(new.resolved, at)
            except UnreachableError:
                _retire(new)
                raise
            old, self._current = self._current, new
            self.status.reloads += 1
            logger.info("%s: from %s to %s", self.ref, old.resolved.version, new.resolved.version)
            _retire(old)

    def _moved(self) -> bool:
        return sum(1 for _ in self._feed.read()) > 0

    def _permitted(self) -> Resolved:
        """What the reference means now, by the policy as its file is now."""
        self._registry.gate.reread()
        return self._registry.resolve(self.ref)

    def _ready(self) -> Held:
        """What the reference means now (a policy may speak of its alias), loaded, and seen to predict."""
        model = self._load(self.ref)
        try:
            if self.task not in (None, model.task):
                raise UsageError(f"{self.ref} is for {model.task} now; this server was started for {self.task}")
            model.try_out()
            if model.resolved is None:
                raise CorruptError(f"{self.ref}: the registry does not say which version it loaded")
        except BaseException:
            model.close()
            raise
        self.task = model.task
        return Held(model.resolved, self._make_runner(model))

    def close(self) -> None:
        """Close the current model when its last request ends."""
        _retire(self._current)


def _retire(held: Held) -> None:
    held.retired = True
    _close_if_done(held)


def _close_if_done(held: Held) -> None:
    if held.retired and held.users == 0:
        held.runner.close()


def _check_fresh(resolved: Resolved, at: datetime.datetime) -> None:
    """Raise where the store did not answer and the cache did: the reference is looked up again at the next look."""
    if datetime.datetime.fromisoformat(resolved.as_of) < at.replace(microsecond=0):
        raise UnreachableError(
            f"{resolved.model}: the store was not to be reached; its last answer is of {resolved.as_of}"
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
