"""Which code of checkpoints the running recipe permits: its stages after `teach` load bundles that carry that code along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from pipelines.config import Recipe, TrustedCode
from pipelines.config.base import Section

#: File name -> sha256 of each version that may run.
_permitted: ContextVar[Mapping[str, frozenset[str]]] = ContextVar("permitted")


@contextmanager
def permitted_code(recipe: Recipe) -> Iterator[None]:
    """Within it, bundles may run the files that the recipe names under any trust_remote_code, and no other.

    The permission is the recipe's alone: what a folder says of itself, its lineage too, permits nothing.
    """
    files: dict[str, frozenset[str]] = {}
    for code in _trusted(recipe):
        for name, digest in code.files.items():
            files[name] = files.get(name, frozenset()) | {digest}
    with permitting(files):
        yield


@contextmanager
def permitting(files: Mapping[str, frozenset[str]]) -> Iterator[None]:
    """As permitted_code, for a permission that `permission` told in another process."""
    token = _permitted.set(files)
    try:
        yield
    finally:
        _permitted.reset(token)


def permission() -> Mapping[str, frozenset[str]]:
    """What may run now: file name -> sha256 of each version."""
    return _permitted.get({})


def _trusted(section: Section) -> Iterator[TrustedCode]:
    """Every trust_remote_code of a recipe, however deep."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, TrustedCode):
            yield value
        elif isinstance(value, Section):
            yield from _trusted(value)


def permitted(name: str, digest: str) -> bool:
    """Whether the running recipe permits a file of code."""
    return digest in permission().get(name, frozenset())
