"""Which versions satisfy what somebody looks for: task, metrics, size, class label, lineage."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_registry.bundles.facts import pipeline_of
from slm_registry.errors import NotFoundError, UsageError, near
from slm_registry.log.state import Version

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?"
_METRIC = re.compile(rf"\s*([^\s<>=!]{{1,200}})\s*(>=|<=|==|!=|>|<)\s*({_NUMBER})\s*")
_SIZE = re.compile(rf"\s*(>=|<=|==|!=|>|<)\s*({_NUMBER})\s*(B|kB|KB|MB|GB|TB)?\s*")
_UNITS = {None: 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
# Below this, what is given of a digest or a commit says too little.
_MIN_PREFIX = 7


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a named number with a bound."""

    name: str
    sign: str
    bound: float

    def holds(self, value: float | None) -> bool:
        """Whether a value satisfies it; one that is not recorded does not."""
        return value is not None and _COMPARE[self.sign](value, self.bound)


@dataclass(frozen=True, slots=True)
class Query:
    """What a version must have, all of it. An empty query is satisfied by every version."""

    task: str | None = None
    metrics: tuple[Condition, ...] = ()
    size: Condition | None = None
    label: str | None = None
    lineage: Mapping[str, str] | None = None
    yanked: bool = False

    def takes(self, version: Version) -> bool:
        """Whether a version satisfies it."""
        facts = version.facts
        if version.yanked is not None and not self.yanked:
            return False
        if self.task is not None and _task(facts) != self.task:
            return False
        if self.size is not None and not self.size.holds(version.size):
            return False
        if self.label is not None and self.label not in facts.get("labels", ()):
            return False
        numbers = facts.get("metrics", {})
        if not all(condition.holds(numbers.get(condition.name)) for condition in self.metrics):
            return False
        recorded = facts.get("lineage", {})
        return all(_comes_from(recorded, name, wanted) for name, wanted in (self.lineage or {}).items())

    def explain(self, versions: Iterable[Version]) -> None:
        """Where nothing was found: raise NotFoundError if one of its words is in no version at all, with near ones."""
        facts = [version.facts for version in versions if version.facts]
        if not facts:
            return
        wanted = [
            ("metric", condition.name, {key for item in facts for key in item["metrics"]}) for condition in self.metrics
        ]
        if self.task is not None:
            wanted.append(("task", self.task, {str(_task(item)) for item in facts if item["task"]}))
        if self.label is not None:
            wanted.append(("label", self.label, {label for item in facts for label in item["labels"]}))
        for kind, word, known in wanted:
            if word not in known:
                raise NotFoundError(f"no version records the {kind} {word!r}; {near(word, known)}")


def _task(facts: Mapping[str, Any]) -> str | None:
    """What a version is for, in the hub's word; an old entry may bear a recipe's."""
    task = facts.get("task")
    return None if task is None else pipeline_of(task)


def _comes_from(recorded: Mapping[str, Any], name: str, wanted: str) -> bool:
    """Whether a recorded digest, commit or source is the wanted one, or starts with what is given of it."""
    wanted = wanted.removeprefix("sha256:")
    for key in ("teacher", "teacher_source") if name == "teacher" else (name,):
        value = str(recorded.get(key, "")).removeprefix("sha256:")
        if value and (value == wanted or (len(wanted) >= _MIN_PREFIX and value.startswith(wanted))):
            return True
    return False


def make_query(
    *,
    task: str | None,
    metrics: Sequence[str],
    size: str | None,
    label: str | None,
    lineage: Mapping[str, str | None],
    yanked: bool,
) -> Query:
    """Read the conditions that somebody wrote. Raises UsageError for one that is none."""
    if isinstance(metrics, str):
        raise UsageError(f"metrics {metrics[:80]!r}: give a list of conditions: ['accuracy>=0.8']")
    given = {name: value for name, value in lineage.items() if value is not None}
    return Query(
        None if task is None else pipeline_of(task), tuple(map(_metric, metrics)), _size(size), label, given, yanked
    )


def _metric(text: str) -> Condition:
    match = _METRIC.fullmatch(text)
    if match is None:
        raise UsageError(
            f"metric {text[:80]!r} is no condition; write a name, a comparison and a number: accuracy>=0.8"
        )
    return Condition(match[1], match[2], float(match[3]))


def _size(text: str | None) -> Condition | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"size {text[:80]!r} is no condition; write a comparison, a number and a unit: <=20MB")
    return Condition("size", match[1], float(match[2]) * _UNITS[match[3]])
