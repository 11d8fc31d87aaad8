"""A model's log in a store: reading it, and appending to it where nobody else was first."""

from __future__ import annotations

import datetime
import itertools
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from slm_registry.errors import ConflictError, CorruptError, StoreError
from slm_registry.log.entries import Entry, encode_entry, entry_key, parse_entry
from slm_registry.log.hints import (
    MAX_HEAD,
    MAX_INDEX,
    Hint,
    complete,
    encode_head,
    encode_index,
    parse_head,
    parse_index,
)
from slm_registry.log.state import ModelState, fold, next_state, state_digest, table_bytes
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import MAX_BYTES
from slm_registry.stores.base import Store

logger = logging.getLogger("slm_registry")
# Each lost round is another writer's success, so this many writers would have to be at one model at once.
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """What to append: the operation's name and the fields it adds to an entry."""

    op: str
    details: Mapping[str, Any]


class History:
    """The log of one model. `check` raises where a state is not one to write on."""

    def __init__(self, store: Store, model: str, check: Callable[[ModelState], None] | None = None) -> None:
        self._store = store
        self._check = check
        self._model = model
        self._head = f"models/{model}/head.json"
        self._index = f"models/{model}/index.json"
        # The table in the store's index.json, as far as this object has read or written it.
        self._indexed: str | None = None

    def head(self) -> ModelState:
        """Aliases, what they point at, and the newest version: two requests where the hint is fresh.

        The state may be not `whole`. Its number is 0 where there is no such model.
        """
        hint = self._read_head()
        if hint is not None and self.entry(hint.state.seq + 1) is None:
            return hint.state
        return self.state()

    def state(self) -> ModelState:
        """What the log adds up to now, with every version; a state with number 0 where there is no such model."""
        cached = self._cached()
        if cached is None:
            return self._walk()
        try:
            return self.follow(cached)
        except CorruptError as error:
            self._ignored(error)
            return self._walk()

    def follow(self, state: ModelState) -> ModelState:
        """`state`, and what was appended since."""
        return fold(self._entries_after(state.seq), state)

    def entries(self, last: int | None = None) -> tuple[Entry, ...]:
        """All entries, or the `last` ones, oldest first, the chain verified; all of them also against the hint."""
        if last is not None:
            return self._last_entries(last)
        found = tuple(self._entries_after(0))
        fold(found, ModelState(self._model))
        hint = self._read_head()
        if hint is not None and hint.last not in found[hint.state.seq - 1 :]:
            self._ignored("it does not agree with the log; the next writer replaces it")
        return found

    def since(self, seq: int) -> Iterator[Entry]:
        """Entries after number `seq`, oldest first. That they follow on what the caller knows is the caller's check."""
        return self._entries_after(seq)

    def append(
        self, decide: Callable[[ModelState], Operation | None], *, actor: str, reason: str
    ) -> tuple[ModelState, bool]:
        """Append what `decide` wants on the current state, and ask it again where another writer was first.

        Returns the state that `decide` last saw or led to, and whether an entry was written. `decide` returns None
        where there is nothing to do, and raises where its operation is no longer wanted.
        """
        state = self._verified_state()
        if self._check is not None:
            self._check(state)
        for _ in range(_ROUNDS):
            operation = decide(state)
            if operation is None:
                return state, False
            after = self._try_append(state, operation, {"actor": actor, "reason": reason})
            if after is not None:
                return after, True
            state = self.follow(state)
        raise ConflictError(f"model {self._model!r}: other writers were first {_ROUNDS} times; run it again")

    def _verified_state(self) -> ModelState:
        """The state, its last entry read from the log itself: nothing is appended on the word of a hint."""
        state = self.state()
        if state.seq and (last := self.entry(state.seq)) is not None and last.digest == state.entry:
            return state
        if state.seq:
            self._ignored(f"the log holds another entry {state.seq}, or none")
        return self._walk()

    def _walk(self) -> ModelState:
        self._indexed = None
        return self.follow(ModelState(self._model))

    def _try_append(self, state: ModelState, operation: Operation, who: Mapping[str, str]) -> ModelState | None:
        stamp = {**who, "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        after = next_state(state, operation.op, operation.details, stamp)
        fields = {
            "model": self._model,
            "seq": after.seq,
            "prev": state.entry,
            "state": state_digest(after),
            "op": operation.op,
            "nonce": uuid.uuid4().hex,
            **stamp,
            **operation.details,
        }
        data = encode_entry(fields)
        # What no reader would accept must not become part of a log that is never changed.
        parse_entry(data, self._model, after.seq, "the new log entry")
        if not self._store.create(entry_key(self._model, after.seq), data):
            return None
        after = replace(after, entry=digest_of(data))
        self._write_hints(after, data)
        return after

    def entry(self, seq: int) -> Entry | None:
        """One entry, None where the log is not that long. Only its form is checked, not the chain."""
        key = entry_key(self._model, seq)
        data = self._store.get(key, MAX_BYTES)
        return None if data is None else parse_entry(data, self._model, seq, f"{self._store.url}: {key}")

    def _entries_after(self, seq: int) -> Iterator[Entry]:
        while (entry := self.entry(seq := seq + 1)) is not None:
            yield entry

    def _last_entries(self, last: int) -> tuple[Entry, ...]:
        state = self._verified_state()
        found = tuple(self._entries_after(max(0, state.seq - last)))
        for before, entry in itertools.pairwise(found):
            if entry.prev != before.digest:
                raise CorruptError(f"{entry_key(self._model, entry.seq)}: the log was forked or altered")
        return found[-last:] if last else ()

    def _read_head(self) -> Hint | None:
        try:
            data = self._store.get(self._head, MAX_HEAD)
            return None if data is None else parse_head(data, self._model)
        except CorruptError as error:
            self._ignored(error)
            return None

    def _cached(self) -> ModelState | None:
        """The cached state with every version: the index, brought up to the head where only aliases moved since."""
        head = self._read_head()
        try:
            data = self._store.get(self._index, MAX_INDEX)
            if data is None:
                return None
            index, table = parse_index(data, self._model)
            fresher = head is not None and head.state.seq >= index.state.seq and head.table == index.table
            state = complete(head if head is not None and fresher else index, table)
        except CorruptError as error:
            self._ignored(error)
            return None
        self._indexed = index.table
        return state

    def _ignored(self, why: CorruptError | str) -> None:
        logger.warning("%s: the hint of %s is ignored: %s", self._store.url, self._model, why)

    def _write_hints(self, state: ModelState, last: bytes) -> None:
        """The entry is committed whatever happens to the hints, so their failure is worth a word and no more."""
        try:
            head, table = encode_head(state, last), digest_of(table_bytes(state))
            if table != self._indexed:
                self._store.put(self._index, encode_index(head, state))
                self._indexed = table
            self._store.put(self._head, head)
        except StoreError as error:
            logger.warning("committed, but the hint was not written: %s", error)
