"""What the catalogue says of a model, read from the registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_registry import names
from slm_registry.bundles.manifest import BundleFile
from slm_registry.client import Registry
from slm_registry.errors import CorruptError
from slm_registry.finding.records import Details, Row
from slm_registry.plumbing.jsonio import MAX_BYTES, parse_object
from slm_registry.site import measures
from slm_registry.site.lineage import Story, story
from slm_registry.site.words import Event, event, marks
from slm_registry.transfer.blobs import read_json_blob

logger = logging.getLogger("slm_registry")
# Of a model with more versions the newest, and those with an alias, are shown in full; of a longer log its end.
MAX_RELEASES = 60
MAX_EVENTS = 400
MAX_FILES = 200
MAX_CARD = 256 << 10
_BARE_ALIAS = "production"


@dataclass(frozen=True, slots=True)
class Release:
    """A version: what the log says of it, its files, its story and what was measured on it and on its teacher."""

    version: str
    digest: str
    aliases: tuple[str, ...]
    size: int
    actor: str
    at: str
    reason: str
    marks: Mapping[str, str]
    files: tuple[BundleFile, ...]
    story: Story
    model: Mapping[str, float]
    teacher: Mapping[str, float]
    #: Key of the measure that the metrics name as the one to judge by; "" where they name none.
    main: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its releases, newest version first, and its history, newest entry first."""

    name: str
    entry: str
    releases: tuple[Release, ...]
    versions: int
    events: tuple[Event, ...]
    entries: int
    aliases: tuple[tuple[str, str], ...]
    current: Release
    card: str | None


def read_log(registry: Registry, name: str) -> tuple[Mapping[str, Any], ...]:
    """A model's log, the chain verified: each entry as one flat object."""
    return tuple(entry.as_dict() for entry in registry.log(name))


def read_model(registry: Registry, name: str, log: tuple[Mapping[str, Any], ...]) -> Model:
    """All that the page of a model shows. Raises CorruptError where the registry holds other bytes than it promised."""
    rows = registry.list(name)
    marked = marks(log)
    shown = [row for place, row in enumerate(rows) if place < MAX_RELEASES or row.aliases]
    found = [(row, registry.show(f"{name}@{row.version}")) for row in shown]
    releases = tuple(_release(registry, row, details, marked.get(row.version, {})) for row, details in found)
    current = _current(releases)
    card = _document(registry, f"{name}@{current.version}", current.files, "README.md", MAX_CARD)
    return Model(
        name,
        log[-1]["digest"],
        releases,
        len(rows),
        tuple(event(entry) for entry in reversed(log[-MAX_EVENTS:])),
        len(log),
        tuple(sorted((alias, release.version) for release in releases for alias in release.aliases)),
        current,
        None if card is None else card.decode("utf-8", errors="replace"),
    )


def _release(registry: Registry, row: Row, details: Details, marked: Mapping[str, str]) -> Release:
    found = details.lineage.get("metrics")
    if not isinstance(found, Mapping):
        found = _metrics(registry, f"{row.model}@{row.version}", details.files)
    model = {"bytes": float(row.size)} | measures.side(found, "model")
    return Release(
        row.version,
        row.digest,
        row.aliases,
        row.size,
        row.actor,
        row.at,
        details.reason,
        marked,
        details.files,
        story(details.lineage),
        model,
        measures.side(found, "teacher"),
        measures.main_of(found),
    )


def _current(releases: tuple[Release, ...]) -> Release:
    """What a bare name means: production or, where that alias is not set, the highest version that is not yanked."""
    for release in releases:
        if _BARE_ALIAS in release.aliases:
            return release
    sound = [release for release in releases if "yanked" not in release.marks]
    return max(sound or releases, key=lambda release: names.version_key(release.version))


def _metrics(registry: Registry, ref: str, files: tuple[BundleFile, ...]) -> Mapping[str, Any]:
    """The bundle's own metrics.json, which anybody may have written: what is no object is worth a word and no more."""
    data = _document(registry, ref, files, "metrics.json", MAX_BYTES)
    try:
        return {} if data is None else parse_object(data, f"metrics.json of {ref}")
    except CorruptError as error:
        logger.warning("no metrics are shown: %s", error)
        return {}


def _document(registry: Registry, ref: str, files: tuple[BundleFile, ...], path: str, limit: int) -> bytes | None:
    """A small file of a version, checked; None where there is none or it is larger than `limit` bytes."""
    for file in files:
        if file.path == path and file.size <= limit:
            return read_json_blob(registry.store, file.digest, limit, f"{path} of {ref}")
    return None
