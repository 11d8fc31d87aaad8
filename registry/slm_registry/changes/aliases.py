"""Moving an alias: with the value that it is expected to have, with the evidence of a gate, or back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_registry.changes import leases
from slm_registry.errors import ConflictError, NotFoundError, PolicyError, UsageError, near
from slm_registry.log.entries import check_words
from slm_registry.log.history import History, Operation
from slm_registry.log.state import Alias, ModelState
from slm_registry.plumbing.hashing import digest_of
from slm_registry.stores.base import Store
from slm_registry.transfer.blobs import read_json_blob, read_manifest, upload

MAX_POLICY = 1 << 20


class _Unset:
    """The value of an argument that was not given, where None is a value of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()
Expected = str | _Unset | None


@dataclass(frozen=True, slots=True)
class Moved:
    """Where an alias points now and pointed before; `moved` is False where nothing had to be written."""

    model: str
    alias: str
    version: str
    previous: str | None
    moved: bool


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves the aliases of one model, in the name of `actor`."""

    store: Store
    model: str
    actor: str
    history: History

    def move(self, alias: str, version: str, *, expected: Expected = UNSET, reason: str = "") -> bool:
        """Point an alias at a version; False where it is there already. See `Registry.alias`."""
        check_words(self.actor, reason)

        def decide(state: ModelState) -> Operation | None:
            at = self._allowed(state, alias, version, expected)
            if at == version and (isinstance(expected, _Unset) or expected == version):
                return None
            return Operation("alias", {"alias": alias, "version": version, "expected": at})

        return self.history.append(decide, actor=self.actor, reason=reason)[1]

    def promote(
        self, alias: str, version: str, *, evaluation: str, policy: bytes, expected: Expected, reason: str
    ) -> Moved:
        """Point an alias at a version that passed a gate; see `Registry.promote`."""
        check_words(self.actor, reason)
        if not policy or len(policy) > MAX_POLICY:
            raise UsageError(f"policy: {len(policy)} bytes; hand in its text, 1 to {MAX_POLICY} bytes")
        digest = digest_of(policy)
        previous: list[str | None] = []

        def decide(state: ModelState) -> Operation | None:
            at = self._allowed(state, alias, version, expected)
            previous[:] = [at]
            evidence = {"evaluation": self._evaluation(state, version, evaluation), "policy": digest}
            read_json_blob(self.store, digest, MAX_POLICY, f"policy of {self.model}@{alias}")
            details = {"alias": alias, "version": version, "expected": at, **evidence}
            done = at == version and self._stands(state.aliases[alias], evidence)
            return None if done else Operation("promote", details)

        with leases.held(self.store, self.model, self.actor, [digest]) as lease:
            upload(self.store, Path(), (), (policy,))
            while lease.lapsed():
                upload(self.store, Path(), (), (policy,))
            moved = self.history.append(decide, actor=self.actor, reason=reason)[1]
        return Moved(self.model, alias, version, previous[0], moved)

    def rollback(self, alias: str, *, expected: Expected, reason: str) -> Moved:
        """Point an alias back to where it was before; see `Registry.rollback`."""
        check_words(self.actor, reason)
        seen: list[Alias] = []
        target: list[str] = []

        def decide(state: ModelState) -> Operation | None:
            held = state.aliases.get(alias)
            if held is None:
                raise NotFoundError(f"model {self.model!r} has no alias {alias!r}; {near(alias, state.aliases)}")
            # Without an expected value, too: it is the move that was seen which is taken back, not a later one.
            wanted = seen[0].version if seen and isinstance(expected, _Unset) else expected
            if (not isinstance(wanted, _Unset) and held.version != wanted) or (seen and seen[0].seq != held.seq):
                raise ConflictError(_elsewhere(self.model, alias, held, wanted))
            seen[:] = [held]
            target[:] = [self._before(state, alias, held)]
            return Operation("alias", {"alias": alias, "version": target[0], "expected": held.version})

        moved = self.history.append(decide, actor=self.actor, reason=reason or "rollback")[1]
        return Moved(self.model, alias, target[0], seen[0].version, moved)

    def _allowed(self, state: ModelState, alias: str, version: str, expected: Expected) -> str | None:
        """Where the alias points now. Raises where it may not move to that version, or is not where it should be."""
        target = state.versions.get(version)
        if target is None:
            raise NotFoundError(f"model {self.model!r} has no version {version}; {near(version, state.versions)}")
        held = state.aliases.get(alias)
        at = held.version if held else None
        if not isinstance(expected, _Unset) and at != expected:
            raise ConflictError(_elsewhere(self.model, alias, held, expected))
        if target.yanked is not None:
            mark = target.yanked
            raise ConflictError(
                f"{self.model}@{version} was yanked by {mark.actor} at {mark.at}{_why(mark.reason)}, and no alias "
                "moves to a yanked version; choose another, or unyank it"
            )
        return at

    def _before(self, state: ModelState, alias: str, held: Alias) -> str:
        for version in reversed(held.trail):
            if state.versions[version].yanked is None:
                return version
        raise NotFoundError(
            f"{self.model}@{alias} is at {held.version} and never was at another version that is not yanked; "
            "name one with the alias command"
        )

    def _evaluation(self, state: ModelState, version: str, named: str) -> str:
        """The digest of the version's file that is named, by its path or its digest."""
        files = read_manifest(self.store, state, version).file_digests()
        digest = files.get(named, named)
        if digest not in files.values():
            raise PolicyError(
                f"{self.model}@{version} holds no file {named!r}: what was evaluated is not what is promoted; "
                "name a file of the version such as metrics.json, or its digest"
            )
        return digest

    def _stands(self, held: Alias, evidence: Mapping[str, Any]) -> bool:
        """Whether the alias is where it is by a promotion with the same evidence."""
        entry = self.history.entry(held.seq)
        return entry is not None and entry.op == "promote" and evidence.items() <= entry.details.items()


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _elsewhere(model: str, alias: str, held: Alias | None, expected: Expected) -> str:
    found = "does not exist"
    if held is not None:
        found = f"is at {held.version}, moved by {held.actor} at {held.at}{_why(held.reason)}"
    wanted = f"at {expected}" if expected else "not to exist"
    return f"{model}@{alias} {found}; it was expected {wanted}; look at the log and decide again"
