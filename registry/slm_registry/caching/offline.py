"""What each store held when it last answered, kept in the cache, so that a pulled model loads with the store gone."""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from slm_registry.errors import CorruptError, StoreError, UnreachableError
from slm_registry.log.hints import MAX_INDEX, encode_part, parse_part
from slm_registry.log.state import ModelState
from slm_registry.plumbing.files import os_errors, replace_file
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore

logger = logging.getLogger("slm_registry")


@dataclass(frozen=True, slots=True)
class Known:
    """A model's state, and when the store said so (UTC)."""

    state: ModelState
    as_of: datetime.datetime

    @property
    def as_of_text(self) -> str:
        """The time as the log writes it."""
        return self.as_of.isoformat(timespec="seconds")


class Unasked:
    """In place of a store that nothing is to be asked of: every call raises UnreachableError."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.identity = store.identity

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise UnreachableError(f"{self.url} is not asked: offline was asked for")

    get = stream = size = create = put_blob = put = delete = children = listing = unfinished = _refuse


class Answers:
    """The last answers of one store. `max_age`, in seconds, is how old an answer may be that is used without it."""

    def __init__(self, root: Path, store: Store, *, max_age: float | None = None) -> None:
        self._folder = root.absolute() / "stores" / hashlib.sha256(store.identity.encode()).hexdigest()
        self._store = store
        self._max_age = max_age

    def latest(self, model: str, ask: Callable[[], ModelState]) -> Known:
        """What the store answers now or, where it is not to be reached, what it answered last.

        Raises UnreachableError where there is no such answer, or one older than `max_age`.
        """
        failure = self._absent()
        if failure is None:
            try:
                return Known(ask(), _now())
            except UnreachableError as error:
                failure = error
        known = self._recall(model)
        if known is None:
            if isinstance(self._store, FolderStore):
                # Perhaps a new store: its own answer says more.
                return Known(ask(), _now())
            raise failure
        age = (_now() - known.as_of).total_seconds()
        if self._max_age is not None and age > self._max_age:
            raise UnreachableError(
                f"{failure}; what is known of {model!r} is from {known.as_of_text}, {age:.0f} s ago, and older than the "
                f"{self._max_age:.0f} s allowed"
            ) from failure
        logger.warning("%s; going on with what it said at %s, %.0f s ago", failure, known.as_of_text, age)
        return known

    def remember(self, known: Known, version: str, whole: Callable[[], ModelState]) -> None:
        """Keep an answer that led to `version`, which stays known beside those that led here before.

        `whole` asks the store for every version, where the answer does not say what became of those. A cache that
        cannot be written to is worth a word and no more: what it held before stands, with its own time.
        """
        path = self._path(known.state.model)
        try:
            data = self._merged(known.state, version, whole)
            if not path.is_file() or path.read_bytes() != data:
                replace_file(path, data)
            os.utime(path, (known.as_of.timestamp(),) * 2)
        except (OSError, StoreError) as error:
            logger.debug("not kept for when the store is gone: %s: %s", path, error)
        except CorruptError as error:
            logger.warning("not kept for when the store is gone: %s", error)

    def forget(self, model: str) -> bool:
        """Drop what the store said of a model; False where nothing was kept."""
        path = self._path(model)
        with os_errors("remove", path):
            known = path.exists()
            path.unlink(missing_ok=True)
        return known

    def _merged(self, state: ModelState, version: str, whole: Callable[[], ModelState]) -> bytes:
        """The aliases, what they point at, the newest version, and what was asked for by version, now or before."""
        before = self._recall(state.model)
        earlier = before.state.versions if before else {}
        if before is not None and before.state.entry == state.entry:
            state = replace(state, versions={**earlier, **state.versions})
        elif not state.whole and not earlier.keys() <= state.versions.keys():
            # The log went on, or is another one: a record of then may say what is no longer so.
            state = whole()
        wanted = {alias.version for alias in state.aliases.values()} | {version, state.newest() or version}
        return encode_part(state, (wanted | earlier.keys()) & state.versions.keys())

    def _absent(self) -> UnreachableError | None:
        """Why the store need not be asked, if so. A folder that is not mounted is empty or missing, and no error.

        One that stands and lacks a log is asked: that is for the witness to judge.
        """
        if isinstance(self._store, FolderStore) and not _stands(self._store.root):
            return UnreachableError(f"{self._store.url} is gone: there is no such folder, or nothing in it")
        return None

    def _recall(self, model: str) -> Known | None:
        path = self._path(model)
        try:
            with path.open("rb") as file:
                at = datetime.datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, datetime.UTC)
                return Known(parse_part(file.read(MAX_INDEX + 1), model, str(path)), at)
        except OSError:
            return None
        except CorruptError as error:
            logger.warning("%s is ignored: %s", path, error)
            return None

    def _path(self, model: str) -> Path:
        return self._folder / f"{model}.json"


def _stands(root: Path) -> bool:
    try:
        return any(root.iterdir())
    except OSError:
        return False


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
