"""What a build put into a registry, and whether it still stands there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slm_registry import Registry
from slm_registry.errors import NotFoundError


@dataclass(frozen=True)
class Publication:
    """What stands in the registry after a build. `created` is False where it stood there before."""

    url: str
    model: str
    version: str
    digest: str
    created: bool
    alias: str
    #: Version that the alias points at: another one where somebody moved it.
    points_at: str


def as_it_stands(publication: Publication) -> Publication | None:
    """What was published, where the registry still holds it, and the alias; where that points is its users' business."""
    registry = Registry(publication.url)
    try:
        pointed = registry.resolve(f"{publication.model}@{publication.alias}").version
        there = registry.resolve(f"{publication.model}@{publication.version}").digest == publication.digest
    except NotFoundError:
        return None
    return replace(publication, created=False, points_at=pointed) if there else None
