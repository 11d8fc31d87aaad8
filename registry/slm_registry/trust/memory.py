"""What this client saw of each model's log last: a log that is shorter now, or another one, was tampered with.

<cache>/memory/<hex of the store's identity>/<model>.json     {format, store, model, seq, entry}

Shared by all processes of a cache. The memory is read before the log, so a log that grows meanwhile raises no alarm, and
it is only ever moved forward, under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slm_registry import names
from slm_registry.errors import CorruptError, StoreError
from slm_registry.log.entries import entry_key
from slm_registry.log.history import History
from slm_registry.log.state import ModelState
from slm_registry.plumbing.files import make_folders, open_regular, os_errors, replace_file
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import MAX_BYTES, canonical, parse_object
from slm_registry.stores.base import Store

FORMAT = 1
_MAX_FILE = 16 << 10

logger = logging.getLogger("slm_registry")


@dataclass(frozen=True, slots=True)
class Seen:
    """The last entry of a log that was seen: its number and the digest of its bytes."""

    seq: int
    entry: str


class Witness:
    """Reads the states of models in a store, and compares each with what was seen before."""

    def __init__(self, cache: Path, store: Store) -> None:
        self._store = store
        self._folder = cache / "memory" / hashlib.sha256(store.identity.encode()).hexdigest()

    def state(self, model: str) -> ModelState:
        """The present state of a model. Raises CorruptError where its log does not continue the one seen before."""
        return self._witnessed(model, History(self._store, model).state)

    def head(self, model: str) -> ModelState:
        """As `state`, in two requests where the hint is fresh and the log did not grow: the state may be not `whole`."""
        return self._witnessed(model, History(self._store, model).head)

    def _witnessed(self, model: str, read: Callable[[], ModelState]) -> ModelState:
        seen = self._recall(model)
        state = read()
        if seen is not None:
            self._compare(model, seen, state)
        if state.entry is not None and (seen is None or state.seq > seen.seq):
            try:
                self._remember(model, Seen(state.seq, state.entry))
            except StoreError as error:
                logger.warning("this log position is not remembered: %s", error)
        return state

    def history(self, model: str) -> History:
        """A model's log, to be written: nothing is appended where it does not continue the one seen before now."""
        seen = self._recall(model)
        return History(self._store, model, None if seen is None else lambda state: self._compare(model, seen, state))

    def models(self) -> tuple[str, ...]:
        """The models of this store that were seen before, sorted."""
        with os_errors("read", self._folder):
            found = [path.name.removesuffix(".json") for path in self._folder.glob("*.json")]
        return tuple(sorted(name for name in found if names.is_model_name(name)))

    def forget(self, model: str) -> bool:
        """Take the log as it is from now on; False where nothing was remembered."""
        path = self._path(model)
        with os_errors("remove", path):
            known = path.exists()
            path.unlink(missing_ok=True)
        return known

    def _compare(self, model: str, seen: Seen, state: ModelState) -> None:
        if state.seq < seen.seq:
            now = f"it ends at entry {state.seq} ({state.entry})" if state.seq else "there is none"
            raise CorruptError(self._alarm(model, seen, now, "rolled back"))
        found = state.entry
        if state.seq > seen.seq:
            data = self._store.get(entry_key(model, seen.seq), MAX_BYTES)
            found = None if data is None else digest_of(data)
        if found != seen.entry:
            now = f"entry {seen.seq} is {found}, and the log ends at entry {state.seq} ({state.entry})"
            raise CorruptError(self._alarm(model, seen, now, "forked or altered"))

    def _alarm(self, model: str, seen: Seen, now: str, how: str) -> str:
        return (
            f"{self._store.url}: the log of {model!r} was {how}: this client saw entry {seen.seq} ({seen.entry}), now "
            f"{now}; if the store was set back on purpose, run `slm-registry forget {model}`"
        )

    def _recall(self, model: str) -> Seen | None:
        path = self._path(model)
        with os_errors("read", path):
            try:
                with open_regular(path) as file:
                    data = file.read(_MAX_FILE + 1)
            except (FileNotFoundError, NotADirectoryError):
                return None
        remedy = f"run `slm-registry forget {model}`"
        try:
            value = parse_object(data, str(path), limit=_MAX_FILE)
        except CorruptError as error:
            raise CorruptError(f"{error}; {remedy}") from error
        seq, entry = value.get("seq"), value.get("entry")
        right = value.get("format") == FORMAT and value.get("model") == model
        if not right or type(seq) is not int or seq < 1 or not isinstance(entry, str) or not names.is_digest(entry):
            raise CorruptError(f"{path}: not the memory of {model!r}; {remedy}")
        return Seen(seq, entry)

    def _remember(self, model: str, seen: Seen) -> None:
        path = self._path(model)
        with os_errors("write", path):
            make_folders(path.parent)
            with _locked(path.with_suffix(".lock")):
                held = self._recall(model)
                if held is not None and held.seq >= seen.seq:
                    return
                value = {"format": FORMAT, "store": self._store.identity, "model": model}
                replace_file(path, canonical({**value, "seq": seen.seq, "entry": seen.entry}))

    def _path(self, model: str) -> Path:
        return self._folder / f"{names.model_name(model)}.json"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No other process in here at the same time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
