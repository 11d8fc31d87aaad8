"""Moving an alias, with the value that it is expected to have."""

from __future__ import annotations

from dataclasses import dataclass

from slm_registry.errors import ConflictError, NotFoundError, near
from slm_registry.history import History, Operation
from slm_registry.log import Alias, ModelState, check_words
from slm_registry.stores import Store


class _Unset:
    """The value of an argument that was not given, where None is a value of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves the aliases of one model, in the name of `actor`."""

    store: Store
    model: str
    actor: str

    def move(self, alias: str, version: str, *, expected: str | _Unset | None = UNSET, reason: str = "") -> bool:
        """Point an alias at a version; False where it is there already. See `Registry.alias`."""
        check_words(self.actor, reason)

        def decide(state: ModelState) -> Operation | None:
            if version not in state.versions:
                raise NotFoundError(f"model {self.model!r} has no version {version}; {near(version, state.versions)}")
            held = state.aliases.get(alias)
            at = held.version if held else None
            if at == version and (isinstance(expected, _Unset) or expected == version):
                return None
            if not isinstance(expected, _Unset) and at != expected:
                raise ConflictError(_moved(self.model, alias, held, expected))
            return Operation("alias", {"alias": alias, "version": version, "expected": at})

        return History(self.store, self.model).append(decide, actor=self.actor, reason=reason)[1]


def _moved(model: str, alias: str, held: Alias | None, expected: str | None) -> str:
    found = "does not exist"
    if held is not None:
        why = f" ({held.reason})" if held.reason else ""
        found = f"is at {held.version}, moved by {held.actor} at {held.at}{why}"
    wanted = f"at {expected}" if expected else "not to exist"
    return f"{model}@{alias} {found}; it was expected {wanted}; look at the log and decide again"
