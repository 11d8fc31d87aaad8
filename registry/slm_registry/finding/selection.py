"""From a reference and a model's state to the version that is meant."""

from __future__ import annotations

from slm_registry import names
from slm_registry.errors import NotFoundError, near
from slm_registry.log.state import ModelState
from slm_registry.ranges import parse_range

_BARE_ALIAS = "production"
_NEWEST = "latest"


def is_exact(ref: names.Ref) -> bool:
    """Whether every version must be known to tell what is meant; aliases and the newest one stand in the head."""
    return bool(ref.version or ref.digest or ref.range)


def select(ref: names.Ref, state: ModelState) -> str:
    """The version that a reference means.

    A bare name means production or, where that alias is not set, the newest version; so does `latest`, which is the
    newest version unless somebody set an alias of that name.
    """
    if ref.version is not None:
        if ref.version in state.versions:
            return ref.version
        raise NotFoundError(f"model {ref.model!r} has no version {ref.version}; {near(ref.version, state.versions)}")
    if ref.digest is not None:
        for version, record in state.versions.items():
            if record.manifest == ref.digest:
                return version
        raise NotFoundError(f"model {ref.model!r} has no version with the digest {ref.digest}")
    if ref.range is not None:
        return _highest(ref.model, ref.range, state)
    alias = state.aliases.get(ref.alias or _BARE_ALIAS)
    if alias is not None:
        return alias.version
    if ref.alias not in (None, _NEWEST):
        raise NotFoundError(f"model {ref.model!r} has no alias {ref.alias!r}; {near(ref.alias or '', state.aliases)}")
    newest = state.newest()
    if newest is None:
        raise NotFoundError(f"model {ref.model!r}: every version is yanked; name one exactly to load it all the same")
    return newest


def alias_meant(ref: names.Ref, state: ModelState) -> str | None:
    """The alias that led to a version: the one named, or production for a bare name. A range leads by none."""
    bare = not is_exact(ref) and _BARE_ALIAS in state.aliases
    return ref.alias or (_BARE_ALIAS if bare else None)


def _highest(model: str, text: str, state: ModelState) -> str:
    """The highest version in a range that is not yanked."""
    wanted = parse_range(text)
    keys = {name: names.version_key(name) for name, record in state.versions.items() if record.yanked is None}
    fitting = [name for name, key in keys.items() if wanted.allows(key)]
    if not fitting:
        newest = state.newest()
        raise NotFoundError(
            f"model {model!r} has no version {text} that is not yanked; "
            + (f"the newest is {newest}" if newest else "every version is yanked")
        )
    return max(fitting, key=keys.__getitem__)
