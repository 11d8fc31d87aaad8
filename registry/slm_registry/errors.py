"""Every error of the registry, one tree.

RegistryError
├── UsageError            2  a bad name, reference, option or input
│   └── InputTypeError    2  also a TypeError: predict was handed something else than texts
├── NotFoundError         3  no such model, alias, version or digest
├── ConflictError         4  somebody else was first, or the version holds other bytes
├── CorruptError          5  bytes that are not what their digest or their format says
├── RefusedError          6  content that a bundle may not hold
├── PolicyError           8  a signature or a policy does not allow it
└── StoreError            7  the store cannot be used
    ├── UnreachableError     no answer, or one that may be another the next time
    ├── AddressError         no such bucket, another region, no folder there
    ├── AccessError          no credentials, or not allowed
    ├── ReadOnlyError
    └── NoSpaceError

`exit_code` is what the command line exits with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class RegistryError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    # What was found until then, for --json and as text: a check that fails still has a report.
    report: tuple[Any, str] | None = None


class UsageError(RegistryError):
    """A name, reference, option or input that cannot be meant."""

    exit_code = 2


class InputTypeError(UsageError, TypeError):
    """`predict` was handed something else than a sequence of texts."""


class NotFoundError(RegistryError):
    """No such model, alias, version or digest in this store."""

    exit_code = 3


class ConflictError(RegistryError):
    """Another writer was first, or the version already holds other bytes."""

    exit_code = 4


class CorruptError(RegistryError):
    """Stored bytes are not what their digest, their order or their format says."""

    exit_code = 5


class RefusedError(RegistryError):
    """A bundle holds content that is never published or loaded."""

    exit_code = 6


class PolicyError(RegistryError):
    """A signature is missing or wrong, or the policy does not allow what was asked."""

    exit_code = 8


class StoreError(RegistryError):
    """The store cannot be used."""

    exit_code = 7


class UnreachableError(StoreError):
    """The store does not answer, or says that it cannot now: the one error of a store that may pass by itself."""


class AddressError(StoreError):
    """The store's address leads nowhere: no such bucket, a bucket of another region, a file where a folder should be."""


class AccessError(StoreError):
    """The store wants credentials that are missing or do not suffice."""


class ReadOnlyError(StoreError):
    """The store may be read but not written."""


class NoSpaceError(StoreError):
    """The store, or the cache, is full."""


def near(value: str, known: Iterable[str]) -> str:
    """A sentence that suggests the known names nearest to `value`, or lists a few of them."""
    names = sorted(set(known))
    if not names:
        return "there is none yet"
    close = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    more = "" if len(names) <= 5 else f" and {len(names) - 5} more"
    return "known: " + ", ".join(names[:5]) + more
