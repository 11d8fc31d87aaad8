"""What happens to a model, as it happens: the entries of its log after a position that can be kept in a file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slm_registry import names
from slm_registry.errors import ConflictError, CorruptError, NotFoundError, StoreError, UnreachableError, UsageError
from slm_registry.log.entries import Entry
from slm_registry.log.history import History
from slm_registry.plumbing.files import make_folders, open_regular, os_errors, replace_file
from slm_registry.plumbing.jsonio import MAX_BYTES, canonical, parse_object
from slm_registry.stores.base import Store

logger = logging.getLogger("slm_registry")
FORMAT = 1
_LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry that was dealt with: its number and its digest; 0 and None before the first one."""

    seq: int = 0
    entry: str | None = None


class Feed:
    """The entries of one model's log after a position, each checked to follow the one before.

    A read costs two requests where nothing is new. What an entry's operation is does not matter here.
    """

    def __init__(self, store: Store, model: str, position: Position) -> None:
        self._store = store
        self._history = History(store, names.model_name(model))
        self._what = f"{store.url}: the log of {model!r}"
        self.position = position

    @classmethod
    def from_now(cls, store: Store, model: str) -> Feed:
        """A feed of what comes after this moment. Raises NotFoundError where there is no such model."""
        state = History(store, names.model_name(model)).state()
        if not state.versions:
            raise NotFoundError(f"{store.url} has no model {model!r}; `slm-registry list` names what it has")
        return cls(store, model, Position(state.seq, state.entry))

    @classmethod
    def starting_at(cls, store: Store, model: str, seq: int) -> Feed:
        """A feed whose first entry is number `seq`, which may be the next one to be written but not a later one."""
        if seq < 1:
            raise UsageError(f"entry {seq}: the log's first entry is number 1")
        if seq == 1:
            return cls(store, model, Position())
        before = next(History(store, names.model_name(model)).since(seq - 2), None)
        if before is None:
            raise NotFoundError(f"{store.url}: the log of {model!r} does not reach entry {seq - 1}; start earlier")
        return cls(store, model, Position(before.seq, before.digest))

    def confirm(self) -> None:
        """Check that the log still holds the entry of the position.

        Raises CorruptError where it does not, UnreachableError where the store holds no model at all any more.
        """
        position = self.position
        if position.seq == 0:
            return
        found = next(self._history.since(position.seq - 1), None)
        if found is None and not self._store.children("models"):
            raise UnreachableError(f"{self._store.url} holds no model any more: it is gone, or not mounted")
        if found is None or found.digest != position.entry:
            now = "is shorter now" if found is None else f"has another entry {position.seq} now"
            raise CorruptError(
                f"{self._what} {now} than when it was last read: it was rolled back or forged; ask its owner, then "
                "start anew without the saved position"
            )

    def read(self) -> Iterator[Entry]:
        """What is new, oldest first; the position moves on as each entry is asked for.

        Raises CorruptError where an entry does not follow the one before it, and, where nothing is new, as `confirm`
        does: a store that is gone, and a log that was set back, have nothing new either.
        """
        before = self.position
        for entry in self._history.since(self.position.seq):
            if entry.prev != self.position.entry:
                raise CorruptError(f"{self._what}: entry {entry.seq} does not follow on what was read: it was forked")
            self.position = Position(entry.seq, entry.digest)
            yield entry
        if self.position == before:
            self.confirm()

    def follow(self, poll: float) -> Iterator[Entry]:
        """What is new and what will be, for ever; looks every `poll` seconds, and less often while the store is away."""
        failures = 0
        while True:
            try:
                yield from self.read()
                failures = 0
            except StoreError as error:
                failures += 1
                logger.warning("watching goes on, but for now: %s", error)
            time.sleep(min(_LONGEST_WAIT, poll * 2 ** min(failures, 10)) if failures else poll)


class StateFile:
    """A file that keeps a feed's position across crashes, for one watcher at a time."""

    def __init__(self, path: Path, store: Store, model: str) -> None:
        self.path = path.absolute()
        self._whose = {"format": FORMAT, "store": store.identity, "model": model}

    @contextlib.contextmanager
    def held(self) -> Iterator[StateFile]:
        """Keep others out. Raises ConflictError where another watcher holds the file."""
        path = self.path.with_name(self.path.name + ".lock")
        with os_errors("write", path):
            make_folders(path.absolute().parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConflictError(f"{self.path}: another watch uses it; give each a file of its own") from error
            yield self
        finally:
            os.close(descriptor)

    def load(self) -> Position | None:
        """The saved position, None where there is no file yet. Raises UsageError where it is another model's."""
        if not self.path.exists():
            return None
        with os_errors("read", self.path), open_regular(self.path) as file:
            value = parse_object(file.read(MAX_BYTES + 1), str(self.path))
        seq, entry = value.pop("seq", None), value.pop("entry", None)
        if type(seq) is not int or seq < 0 or (entry is None) != (seq == 0) or not _digest_or_none(entry):
            raise CorruptError(f"{self.path}: no position of a watch; remove it to start anew")
        if value != self._whose:
            raise UsageError(f"{self.path} keeps the position of {value}, not of {self._whose}; name another file")
        return Position(seq, entry)

    def save(self, position: Position) -> None:
        """Keep a position, durably."""
        replace_file(self.path, canonical({**self._whose, "seq": position.seq, "entry": position.entry}))


def _digest_or_none(entry: object) -> bool:
    return entry is None or (isinstance(entry, str) and names.is_digest(entry))
