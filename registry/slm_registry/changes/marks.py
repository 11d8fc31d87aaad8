"""Marking a version: yanked, so that nothing chooses it any more, or deprecated, so that whoever loads it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slm_registry.errors import ConflictError, NotFoundError, near
from slm_registry.log.entries import check_words
from slm_registry.log.history import History, Operation
from slm_registry.log.state import MARKS, ModelState, Version
from slm_registry.plumbing.printable import clean

Op = Literal["yank", "unyank", "deprecate", "undeprecate"]


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks the versions of one model, in the name of `actor`."""

    model: str
    actor: str
    history: History

    def mark(self, op: Op, version: str, reason: str) -> bool:
        """Set or remove a mark; False where it is so already.

        Raises NotFoundError for an unknown version, ConflictError where an alias points at one that is to be yanked.
        """
        check_words(self.actor, reason)
        field, value = MARKS[op]

        def decide(state: ModelState) -> Operation | None:
            held = state.versions.get(version)
            if held is None:
                raise NotFoundError(f"model {self.model!r} has no version {version}; {near(version, state.versions)}")
            if (getattr(held, field) is not None) == value:
                return None
            aliases = state.aliases_of(version) if op == "yank" else ()
            if aliases:
                raise ConflictError(
                    f"{self.model}@{version} is what {', '.join(aliases)} stands for; move that first: "
                    f"slm-registry rollback {self.model} {aliases[0]}"
                )
            return Operation(op, {"version": version})

        return self.history.append(decide, actor=self.actor, reason=reason)[1]


def caution(model: str, name: str, version: Version) -> str | None:
    """What to tell somebody who takes this version, None where nothing is to be said."""
    for what, mark in (("yanked", version.yanked), ("deprecated", version.deprecated)):
        if mark is not None:
            why = mark.reason or "no reason given"
            return clean(f"{model}@{name} is {what}, by {mark.actor} at {mark.at}: {why}")
    return None
