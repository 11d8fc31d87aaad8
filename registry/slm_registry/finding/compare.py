"""Two versions side by side: metrics, size, files, recipe, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_registry.bundles.facts import flatten, metrics_of
from slm_registry.bundles.manifest import BundleFile


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared of one version; sizes in bytes."""

    model: str
    version: str
    digest: str
    size: int
    files: tuple[BundleFile, ...]
    lineage: Mapping[str, Any]
    facts: Mapping[str, Any]

    def metrics(self) -> Mapping[str, float]:
        """Its numbers by name: those of its entry or, for an entry of the first format, of its lineage."""
        if self.facts:
            found: Mapping[str, float] = self.facts["metrics"]
            return found
        recorded = self.lineage.get("metrics")
        return metrics_of(recorded) if isinstance(recorded, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Difference:
    """A named value on the left and on the right, None where that side has none."""

    name: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs between two versions, and all metrics, equal or not."""

    left: str
    right: str
    size: Difference
    metrics: tuple[Difference, ...]
    files: tuple[Difference, ...]
    recipe: tuple[Difference, ...]
    origin: tuple[Difference, ...]


def compare(left: Side, right: Side) -> Comparison:
    """Compare two versions, of one model or of two."""
    recipes = [side.lineage.get("recipe") for side in (left, right)]
    origins = [side.facts.get("lineage", {}) for side in (left, right)]
    digests = [{file.path: file.digest for file in side.files} for side in (left, right)]
    return Comparison(
        f"{left.model}@{left.version}",
        f"{right.model}@{right.version}",
        Difference("size", left.size, right.size),
        _pairs(left.metrics(), right.metrics()),
        _changed(*digests),
        _changed(*(dict(flatten(recipe)) if isinstance(recipe, Mapping) else {} for recipe in recipes)),
        _changed(*origins),
    )


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(Difference(name, left.get(name), right.get(name)) for name in sorted(left.keys() | right.keys()))


def _changed(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(pair for pair in _pairs(left, right) if pair.left != pair.right)
