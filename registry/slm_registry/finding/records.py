"""What the registry answers with: rows of a listing, the details of a version, what a reference stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slm_registry import names
from slm_registry.bundles.manifest import BundleFile
from slm_registry.finding.search import Query
from slm_registry.log.state import ModelState, Version


@dataclass(frozen=True, slots=True)
class Row:
    """One version in a listing; `size` is the sum of its files in bytes, `status` "yanked", "deprecated" or empty.

    `facts` is what it is searched by: task, metrics, labels, label_count, lineage; empty for entries of format 1.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    size: int
    digest: str
    actor: str
    at: str
    status: str
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The row as one JSON object."""
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class Details:
    """All there is to know about a version."""

    model: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    size: int
    actor: str
    at: str
    reason: str
    files: tuple[BundleFile, ...]
    lineage: dict[str, Any]
    status: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for. `as_of` is when the store said so: now, or before where it cannot be reached."""

    model: str
    version: str
    digest: str
    as_of: str = field(default="", compare=False)


def rows_of(state: ModelState, query: Query) -> list[Row]:
    """The versions of a model that a query takes, newest first."""
    aliases: dict[str, list[str]] = {}
    for alias, held in sorted(state.aliases.items()):
        aliases.setdefault(held.version, []).append(alias)
    found = [(name, record) for name, record in state.versions.items() if query.takes(record)]
    found.sort(key=lambda item: names.version_key(item[0]), reverse=True)
    return [
        Row(
            state.model,
            name,
            tuple(aliases.get(name, ())),
            record.size,
            record.manifest,
            record.actor,
            record.at,
            status_of(record),
            record.facts,
        )
        for name, record in found
    ]


def status_of(record: Version) -> str:
    """ "yanked", "deprecated" or nothing."""
    return "yanked" if record.yanked else "deprecated" if record.deprecated else ""
