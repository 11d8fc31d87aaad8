"""A version's bill of materials: CycloneDX 1.6 JSON, with the model as a machine-learning model.

A pure function of the manifest, the lineage and the log entry of a version, all of which are under digests (and, where
the version is signed, under its signatures). So it is made when it is asked for, the same each time, and not stored.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from slm_registry import __version__
from slm_registry.bundles.facts import pipeline_of
from slm_registry.plumbing.hashing import digest_of
from slm_registry.plumbing.jsonio import canonical

if TYPE_CHECKING:
    from slm_registry.finding.records import Details

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_MAX_VALUE = 2000
_MAX_METRICS = 500
# What of the lineage has a place of its own; the rest becomes properties.
_PLACED = {"metrics", "environment"}
_NO_LIBRARIES = {"python", "system", "machine"}


def bill_of_materials(details: Details) -> dict[str, Any]:
    """The ML-BOM of a published version, as JSON. Lineage of any shape is taken; what is not understood is a property."""
    lineage = details.lineage
    model = _model(details)
    data = _data(lineage)
    files = [_file(file.path, file.digest) for file in details.files]
    value: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, details.digest).urn,
        "version": 1,
        "metadata": {"tools": {"components": [_tool()]}, "component": model},
        "components": [*files, *data],
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [item["bom-ref"] for item in [*files, *data]]}],
    }
    if details.actor:
        value["metadata"]["authors"] = [{"name": details.actor}]
    if _is_time(details.at):
        value["metadata"]["timestamp"] = details.at
    made_with = [_library(name, str(version)) for name, version in sorted(_table(lineage, "environment").items())]
    if made_with:
        value["formulation"] = [{"components": made_with}]
    return value


def _model(details: Details) -> dict[str, Any]:
    lineage = details.lineage
    parameters: dict[str, Any] = {"datasets": [{"ref": item["bom-ref"]} for item in _data(lineage)]}
    task = _task(lineage)
    if task:
        parameters["task"] = task
    card: dict[str, Any] = {"modelParameters": parameters}
    metrics = [{"type": name, "value": str(number)} for name, number in _numbers(lineage.get("metrics"), "")]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics[:_MAX_METRICS]}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"{details.model}@{details.version}",
        "name": details.model,
        "version": details.version,
        "modelCard": card,
        "properties": _properties(details),
    }
    pedigree = _pedigree(lineage)
    return {**component, "pedigree": pedigree} if pedigree else component


def _properties(details: Details) -> list[dict[str, str]]:
    """The manifest's digest, the size, and what of the lineage has no place of its own in CycloneDX."""
    found = {"manifest": details.digest, "size": str(details.size)}
    for key, item in sorted(details.lineage.items()):
        if key not in _PLACED:
            text = item if isinstance(item, str) else canonical(item).decode()
            found[f"lineage:{key}"] = text if len(text) <= _MAX_VALUE else digest_of(text.encode())
    return [{"name": f"slm-registry:{key}", "value": value} for key, value in found.items()]


def _pedigree(lineage: Mapping[str, Any]) -> dict[str, Any]:
    pedigree: dict[str, Any] = {}
    teacher = _table(lineage, "teacher")
    if teacher.get("source"):
        ancestor = {"type": "machine-learning-model", "name": str(teacher["source"])}
        pedigree["ancestors"] = [{**ancestor, **_hashes(teacher.get("sha256"))}]
    commit = _table(lineage, "git").get("commit") or lineage.get("git_commit")
    if isinstance(commit, str):
        pedigree["commits"] = [{"uid": commit}]
    return pedigree


def _data(lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The training data, where its digest is recorded."""
    hashes = _hashes(lineage.get("data_sha256"))
    return [{"type": "data", "bom-ref": "training-data", "name": "training data", **hashes}] if hashes else []


def _file(path: str, digest: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"file:{path}", "name": path, **_hashes(digest)}


def _library(name: str, version: str) -> dict[str, Any]:
    component = {"type": "library", "name": name, "version": version}
    if name in _NO_LIBRARIES:
        return {**component, "type": "platform"}
    # The characters of Python's names and versions need no quoting but for "+" and "!".
    return {**component, "purl": f"pkg:pypi/{_quoted(name.lower())}@{_quoted(version)}"}


def _tool() -> dict[str, str]:
    return {"type": "application", "name": "slm-registry", "version": __version__}


def _task(lineage: Mapping[str, Any]) -> str | None:
    """The kind of task, in the places where a lineage names it."""
    for table in (lineage, _table(lineage, "bundle"), _table(lineage, "recipe")):
        task = table.get("task")
        named = task.get("type") if isinstance(task, Mapping) else task
        if isinstance(named, str) and named:
            return pipeline_of(named)
    return None


def _numbers(value: Any, name: str) -> Iterator[tuple[str, int | float]]:
    """Every number in a nest of objects, under its path."""
    if isinstance(value, Mapping):
        for key, item in sorted(value.items()):
            yield from _numbers(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _hashes(digest: Any) -> dict[str, Any]:
    match = _SHA256.fullmatch(digest) if isinstance(digest, str) else None
    return {"hashes": [{"alg": "SHA-256", "content": match[1]}]} if match else {}


def _table(lineage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = lineage.get(key)
    return value if isinstance(value, Mapping) else {}


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _is_time(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        return False
