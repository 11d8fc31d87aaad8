"""A model's log in a store: reading it, and appending to it where nobody else was first."""

from __future__ import annotations

import datetime
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from slm_registry.errors import ConflictError, CorruptError, StoreError
from slm_registry.hashing import digest_of
from slm_registry.jsonio import MAX_BYTES
from slm_registry.log import (
    MAX_HEAD,
    Entry,
    ModelState,
    encode_entry,
    encode_head,
    entry_key,
    fold,
    next_state,
    parse_entry,
    parse_head,
    state_digest,
)
from slm_registry.stores import Store

logger = logging.getLogger("slm_registry")
# Each lost round is another writer's success, so this many writers would have to be at one model at once.
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """What to append: the operation's name and the fields it adds to an entry."""

    op: str
    details: Mapping[str, Any]


class History:
    """The log of one model."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._head = f"models/{model}/head.json"

    def state(self) -> ModelState:
        """What the log adds up to now; a state with number 0 where there is no such model."""
        return self.follow(self._hint() or ModelState(self._model))

    def follow(self, state: ModelState) -> ModelState:
        """`state`, and what was appended since."""
        return fold(self._entries_after(state.seq), state)

    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first, the chain verified."""
        found = tuple(self._entries_after(0))
        fold(found, ModelState(self._model))
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
        state = self.state()
        for _ in range(_ROUNDS):
            operation = decide(state)
            if operation is None:
                return state, False
            after = self._try_append(state, operation, {"actor": actor, "reason": reason})
            if after is not None:
                self._write_hint(after)
                return after, True
            state = self.follow(state)
        raise ConflictError(f"model {self._model!r}: other writers were first {_ROUNDS} times; run it again")

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
        return replace(after, entry=digest_of(data))

    def _entry(self, seq: int) -> Entry | None:
        key = entry_key(self._model, seq)
        data = self._store.get(key, MAX_BYTES)
        return None if data is None else parse_entry(data, self._model, seq, f"{self._store.url}: {key}")

    def _entries_after(self, seq: int) -> Iterator[Entry]:
        while (entry := self._entry(seq := seq + 1)) is not None:
            yield entry

    def _hint(self) -> ModelState | None:
        """The cached state, if the log's own entry promises exactly that state; None otherwise."""
        try:
            data = self._store.get(self._head, MAX_HEAD)
            if data is None:
                return None
            state = parse_head(data, self._model)
        except CorruptError as error:
            logger.warning("%s: the hint is ignored: %s", self._store.url, error)
            return None
        entry = self._entry(state.seq)
        if entry is None or (entry.digest, entry.state) != (state.entry, state_digest(state)):
            logger.warning("%s: %s does not agree with the log and is ignored", self._store.url, self._head)
            return None
        return state

    def _write_hint(self, state: ModelState) -> None:
        """The entry is committed whatever happens to the hint, so its failure is worth a word and no more."""
        try:
            self._store.put(self._head, encode_head(state))
        except StoreError as error:
            logger.warning("committed, but the hint was not written: %s", error)
