"""Model families: a literal table from the recipe's task to what serves it."""

from __future__ import annotations

from pipelines.config import Task
from pipelines.families.base import Family


def family_of(task: Task) -> Family:
    """The family that serves a task."""
    from pipelines.families.encoder import EncoderClassifier

    families: dict[str, Family] = {"text-classification": EncoderClassifier()}
    return families[task.type]
