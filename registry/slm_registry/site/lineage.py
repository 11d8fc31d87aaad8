"""A version's lineage as a short story and a list of facts. Its shape is the publisher's: nothing in it is relied on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_registry.bundles.facts import pipeline_of
from slm_registry.site.words import cut

_MAX_TEXT = 300
_MAX_STAGES = 12
_MAX_RAW = 60_000
# The settings that tell two stages of one kind apart, in the order in which they are named.
_TELLING = ("mode", "technique", "kind", "layers", "intermediate_size", "per_channel")


@dataclass(frozen=True, slots=True)
class Step:
    """A step on the way to a version: its name, what is to be said of it, a digest where there is one."""

    name: str
    note: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """Where a version comes from: steps in order, single facts, and all of it as JSON."""

    task: str
    steps: tuple[Step, ...]
    facts: tuple[tuple[str, str], ...]
    raw: str


def story(lineage: Mapping[str, Any]) -> Story:
    """Read a lineage as the factory records it, or the bundle's own lineage.json, or whatever else there is."""
    made = lineage["bundle"] if isinstance(lineage.get("bundle"), Mapping) else lineage
    data = _text(lineage, "data_sha256") or _text(made, "data_sha256")
    teacher, origin = _text(made, "teacher", "sha256"), _text(made, "teacher", "source")
    steps = [Step("data", "training and test set", data)] if data else []
    if teacher or origin:
        steps.append(Step("base model", origin, teacher))
    stages = made.get("stages")
    for stage in stages[:_MAX_STAGES] if isinstance(stages, list) else []:
        if isinstance(stage, Mapping) and _text(stage, "stage"):
            steps.append(Step(_text(stage, "stage"), _settings(stage.get("params"))))
    raw = json.dumps(lineage, ensure_ascii=False, indent=2, sort_keys=True)
    return Story(
        pipeline_of(_text(made, "task", "type")), tuple(steps), _facts(lineage, data, teacher), cut(raw, _MAX_RAW)
    )


def _facts(lineage: Mapping[str, Any], data: str, teacher: str) -> tuple[tuple[str, str], ...]:
    commit = _text(lineage, "git", "commit") or _text(lineage, "git_commit")
    git = lineage.get("git")
    if commit and isinstance(git, Mapping) and git.get("dirty") is True:
        commit += " (with changes that were not committed)"
    found = [("git commit", commit), ("dvc.lock sha256", _text(lineage, "dvc_lock_sha256"))]
    found += [("data sha256", data), ("base model sha256", teacher)]
    environment = lineage.get("environment")
    if isinstance(environment, Mapping):
        values = [f"{key} {value}" for key, value in sorted(environment.items()) if isinstance(value, str)]
        found.append(("environment", cut(", ".join(values), _MAX_TEXT)))
    return tuple((name, value) for name, value in found if value)


def _settings(params: object) -> str:
    if not isinstance(params, Mapping):
        return ""
    flat = {**params, **(params["student"] if isinstance(params.get("student"), Mapping) else {})}
    said = []
    for key in _TELLING:
        value = flat.get(key)
        if key in ("mode", "technique", "kind") and isinstance(value, str):
            said.append(value.replace("_", " "))
        elif isinstance(value, list) and all(isinstance(item, int) for item in value):
            said.append(f"{key} {', '.join(map(str, value))}")
        elif value is True:
            said.append(key.replace("_", " "))
        elif isinstance(value, int) and value is not False:
            said.append(f"{key.replace('_', ' ')} {value}")
    return cut(", ".join(said), 120)


def _text(value: object, *keys: str) -> str:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return cut(value, _MAX_TEXT) if isinstance(value, str) else ""
