"""One pass of all checks over all rows, in an order in which each row is found once, by the first that applies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipelines.config import (
    Action,
    Checks,
    GivenSplits,
    MadeSplits,
    TagChecks,
    TargetChecks,
    Task,
    TextChecks,
    TextData,
)
from pipelines.data import checks
from pipelines.data.checks import Found, Rows
from pipelines.data.language import other_language
from pipelines.data.near import near_groups
from pipelines.data.rows import SPLITS, UNCUT, Row
from pipelines.data.splits import cut


@dataclass(frozen=True)
class Finding:
    """What one check found: row numbers with their reasons. No action: the recipe turns the check off."""

    check: str
    action: Action | None
    rows: Found


@dataclass(frozen=True)
class Examined:
    """Every row in its final split, and every check with its findings."""

    rows: list[Row]
    findings: list[Finding]

    @property
    def clean(self) -> list[Row]:
        """The rows that no check found."""
        found = {i for finding in self.findings for i in finding.rows}
        return [row for i, row in enumerate(self.rows) if i not in found]


@dataclass
class _Work:
    """The rows that no check has found yet, the findings so far, and the splits that were cut."""

    alive: dict[int, Row]
    findings: dict[str, Finding]
    splits: dict[int, str] = field(default_factory=dict)

    def apply(self, check: str, function: Callable[[Rows], Found]) -> None:
        """Run a check on the rows alive and take out those that it finds."""
        found = function(self.alive)
        self.findings[check].rows.update(found)
        for i in found:
            del self.alive[i]

    def place(self, i: int, split: str) -> None:
        """Put a row into the split that was cut for it."""
        self.alive[i] = self.alive[i]._replace(split=split)
        self.splits[i] = split


def examine(rows: list[Row], task: Task, data: TextData) -> Examined:
    """Check every row, cut the splits where the recipe asks for it, and check across splits."""
    findings = {name: Finding(name, action, {}) for name, action in actions(data.checks).items()}
    work = _Work(dict(enumerate(rows)), findings)
    _check_rows(work, data.checks)
    _check_leakage(work, data.checks)
    if not (isinstance(data.splits, GivenSplits) and isinstance(data.splits.validation, str)):
        _cut(work, data, task.seed)
        _check_leakage(work, data.checks)
    if isinstance(data.checks, Checks):
        work.apply("label_set", checks.unknown_label)
        work.apply("class_count", partial(checks.small_class, min_rows=data.checks.class_count.min_rows))
    final = [row._replace(split=work.splits.get(i, row.split)) for i, row in enumerate(rows)]
    return Examined(final, list(work.findings.values()))


def actions(settings: TextChecks) -> dict[str, Action | None]:
    """Every check of the recipe by name, with its action; None: turned off."""
    found: dict[str, Action | None] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        found[name] = getattr(value, "action", value)
    return found


def _check_rows(work: _Work, settings: TextChecks) -> None:
    """The checks that do not ask which split a row will be in."""
    work.apply("empty_text", checks.empty_text)
    if isinstance(settings, Checks):
        work.apply("missing_label", checks.missing_label)
    if isinstance(settings, TargetChecks):
        work.apply("missing_target", checks.missing_target)
    if isinstance(settings, TagChecks):
        work.apply("misaligned_tags", checks.misaligned_tags)
    work.apply("long_text", partial(checks.long_text, max_chars=settings.long_text.max_chars))
    work.apply("encoding_damage", checks.encoding_damage)
    if settings.language is not None:
        asked = partial(other_language, expected=settings.language.expected, confidence=settings.language.confidence)
        work.apply("language", asked)
    if isinstance(settings, Checks):
        if settings.label_set.allowed is not None:
            work.apply("label_set", partial(checks.forbidden_label, allowed=settings.label_set.allowed))
        work.apply("conflicting_labels", checks.conflicting_labels)
    work.apply("duplicates", checks.duplicates)


def _check_leakage(work: _Work, settings: TextChecks) -> None:
    work.apply("leakage_exact", checks.leakage_exact)
    if settings.leakage_near is not None:
        work.apply("leakage_near", partial(checks.leakage_near, similarity=settings.leakage_near.similarity))


def _cut(work: _Work, data: TextData, seed: int) -> None:
    """Cut what the recipe wants cut, out of the rows alive: all three splits, or validation out of train."""
    whole, fractions = _fractions(data.splits)
    rows = [i for i, row in work.alive.items() if row.split == whole]
    numbered = dict(zip(rows, _groups([work.alive[i].text or "" for i in rows], data.checks), strict=True))
    labelled = isinstance(data.checks, Checks)
    if labelled:
        work.apply("class_count", partial(checks.too_few_to_cut, groups=numbered, splits=len(fractions) + 1))
    left = [i for i in rows if i in work.alive]
    texts = [work.alive[i].text or "" for i in left]
    # What is no label has no share to keep: every row is of one class then.
    labels = [(work.alive[i].label or "") if labelled else "" for i in left]
    for i, split in zip(left, cut(texts, labels, [numbered[i] for i in left], fractions, seed), strict=True):
        work.place(i, split)


def _groups(texts: list[str], settings: TextChecks) -> Sequence[int]:
    """Texts that must share a split bear one number."""
    if settings.leakage_near is None:
        return range(len(texts))
    return near_groups(texts, settings.leakage_near.similarity)


def _fractions(splits: GivenSplits | MadeSplits) -> tuple[str, dict[str, float]]:
    """Which rows are cut, and the share of each split cut from them."""
    if isinstance(splits, MadeSplits):
        return UNCUT, {"validation": splits.validation, "test": splits.test}
    if isinstance(splits.validation, str):
        raise ValueError("nothing is cut where every split is a file")
    return "train", {"validation": splits.validation}


def remaining_problems(rows: list[Row], settings: TextChecks) -> list[str]:
    """Why the rows that are left make no data set; empty where they do."""
    problems: list[str] = []
    if not isinstance(settings, Checks):
        held = {row.split for row in rows}
        return [f"{split}: no rows are left; give more rows" for split in SPLITS if split not in held]
    known = {row.label for row in rows if row.split == "train"}
    for split in SPLITS:
        labels = {row.label for row in rows if row.split == split}
        if not labels:
            problems.append(f"{split}: no rows are left; give more rows")
        elif len(labels) == 1:
            problems.append(f"{split}: one class only, {labels.pop()!r}; a classifier needs rows of at least two")
    if settings.label_set.allowed is not None and settings.class_count.action == "fail":
        absent = [label for label in settings.label_set.allowed if label not in known]
        problems += [
            f"train: no row of class {label!r}, which label_set.allowed names; give rows, or take it out"
            for label in absent
        ]
    return problems
