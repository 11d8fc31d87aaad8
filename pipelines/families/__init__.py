"""Model families: literal tables from the recipe's task to what serves it."""

from __future__ import annotations

from pipelines.config import Task, TextToTextTask
from pipelines.families.base import Family
from pipelines.families.sequences import SequenceFamily


def family_of(task: Task) -> Family:
    """The family that serves a task of one label a text."""
    from pipelines.families.encoder import EncoderClassifier

    families: dict[str, Family] = {"text-classification": EncoderClassifier()}
    return families[task.type]


def sequence_family_of(task: Task) -> SequenceFamily:
    """The family that serves a task answered token by token."""
    from pipelines.families.causal import CausalModel
    from pipelines.families.seq2seq import TextToText
    from pipelines.families.tagging import Tagger

    if isinstance(task, TextToTextTask):
        return TextToText(task.max_target_length)
    families: dict[str, SequenceFamily] = {"text-generation": CausalModel(), "token-classification": Tagger()}
    return families[task.type]
