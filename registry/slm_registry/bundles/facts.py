"""What a version can be found by: a few facts of its bundle and its lineage, bounded, that its log entry carries.

{"task": text or None, "metrics": {name: number}, "labels": [text], "label_count": n, "lineage": {name: text}}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from slm_registry.errors import CorruptError, RefusedError
from slm_registry.plumbing.files import os_errors
from slm_registry.plumbing.jsonio import parse_object

MAX_METRICS = 64
MAX_LABELS = 256
MAX_LABEL_CHARS = 4096
MAX_LINEAGE = 16
MAX_WORD = 200

_MAX_DOCUMENT = 4 << 20
_KEYS = {"task", "metrics", "labels", "label_count", "lineage"}
#: How the name of an architecture ends -> what it is for.
TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
}
#: A recipe's word for a task -> the hub's pipeline word, which stands everywhere outside of recipes. The others are the same.
_PIPELINES = {"text-to-text": "text2text-generation"}
_TASK = ("task.type", "task", "bundle.task.type", "recipe.task.type")
# Where the factory's record, or one written by hand, says a thing.
_LINEAGE: Mapping[str, tuple[str, ...]] = {
    "git": ("git.commit", "git_commit"),
    "data": ("data_sha256",),
    "teacher": ("teacher.sha256", "teacher"),
    "teacher_source": ("teacher.source",),
    "parent": ("parent.sha256", "parent"),
    "dvc_lock": ("dvc_lock_sha256",),
}


def read_facts(folder: Path, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a bundle's folder. `lineage` is what is recorded with it. Raises RefusedError for broken JSON."""
    config = _document(folder / "config.json")
    recorded = lineage.get("metrics")
    metrics = _document(folder / "metrics.json") or (recorded if isinstance(recorded, Mapping) else {})
    labels = config.get("id2label")
    known = [str(label) for label in labels.values()] if isinstance(labels, Mapping) else []
    return {
        "task": _task(config, lineage),
        "metrics": metrics_of(metrics),
        "labels": _bounded_labels(known),
        "label_count": len(known),
        "lineage": _lineage_facts(lineage),
    }


def check_facts(value: Any) -> None:
    """Raise ValueError, in words, where a parsed value is no facts. An entry without any has the empty object."""
    if value == {}:
        return
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise ValueError(f"facts: the fields {', '.join(sorted(_KEYS))} were expected")
    metrics, labels, lineage = value["metrics"], value["labels"], value["lineage"]
    if not (value["task"] is None or _are_words([value["task"]])):
        raise ValueError("facts: the task is no short text")
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS or not _are_metrics(metrics):
        raise ValueError(f"facts: the metrics are not at most {MAX_METRICS} numbers with short names")
    if not isinstance(labels, list) or len(labels) > MAX_LABELS or not _are_words(labels):
        raise ValueError(f"facts: the labels are not at most {MAX_LABELS} short texts")
    if type(value["label_count"]) is not int or value["label_count"] < len(labels):
        raise ValueError("facts: the number of labels is wrong")
    if not isinstance(lineage, dict) or len(lineage) > MAX_LINEAGE:
        raise ValueError(f"facts: the lineage is not an object of at most {MAX_LINEAGE} texts")
    if not (_are_words(lineage) and _are_words(lineage.values())):
        raise ValueError("facts: a name or a value of the lineage is no short text")


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested objects as (dotted name, value), in the order of their names."""
    for key in sorted(value, key=str):
        item = value[key]
        if isinstance(item, Mapping) and item:
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


# Ten thousand versions are checked at once, so these two loop in C.
def _are_words(values: Collection[Any]) -> bool:
    return set(map(type, values)) <= {str} and max(map(len, values), default=0) <= MAX_WORD


def _are_metrics(metrics: Mapping[Any, Any]) -> bool:
    if not _are_words(metrics) or not set(map(type, metrics.values())) <= {int, float}:
        return False
    try:
        return all(map(math.isfinite, metrics.values()))
    except OverflowError:
        return False


def _document(path: Path) -> dict[str, Any]:
    """A JSON object of the bundle; an empty one where there is no such file."""
    try:
        with os_errors("read", path):
            if not path.exists():
                return {}
            return parse_object(path.read_bytes(), path.name, limit=_MAX_DOCUMENT)
    except CorruptError as error:
        raise RefusedError(f"{error}; correct the file") from error


def _task(config: Mapping[str, Any], lineage: Mapping[str, Any]) -> str | None:
    leaves = dict(flatten(lineage))
    named = next((str(leaves[place]) for place in _TASK if _are_words([leaves.get(place)])), None)
    if named is not None:
        return pipeline_of(named)
    return task_of(config.get("architectures"))


def pipeline_of(task: str) -> str:
    """The hub's pipeline word for a task, whether that or a recipe's word is given."""
    return _PIPELINES.get(task, task)


def task_of(architectures: Any) -> str | None:
    """What the first of config.json's `architectures` is for, by how its name ends; None where that says nothing."""
    kind = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((task for ending, task in TASKS.items() if kind.endswith(ending)), None)


def metrics_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own numbers by their plain names, then the others by dotted ones, as many as are allowed."""
    own = metrics.get("model")
    rest = {key: item for key, item in metrics.items() if key != "model"}
    pairs = [*(flatten(own) if isinstance(own, Mapping) else ()), *flatten(rest)]
    found = [pair for pair in pairs if _are_metrics(dict([pair]))]
    return dict(found[:MAX_METRICS])


def _bounded_labels(labels: list[str]) -> list[str]:
    kept: list[str] = []
    room = MAX_LABEL_CHARS
    for label in labels[:MAX_LABELS]:
        room -= len(label)
        if room < 0 or not _are_words([label]):
            break
        kept.append(label)
    return kept


def _lineage_facts(lineage: Mapping[str, Any]) -> dict[str, str]:
    leaves = dict(flatten(lineage))
    found = {}
    for name, places in _LINEAGE.items():
        value = next((leaves[place] for place in places if _are_words([leaves.get(place)])), None)
        if value:
            found[name] = value
    return found
