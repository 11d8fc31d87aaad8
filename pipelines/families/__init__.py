"""Model families: literal tables from the recipe's task to what serves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.bundle import Bundle
from pipelines.config import Task, TextToTextTask
from pipelines.families.base import Family
from pipelines.families.sequences import SequenceFamily

if TYPE_CHECKING:
    from pipelines.families.retelling import Retelling

#: The task of one label a text; the others are answered token by token.
WHOLE_TEXT = "text-classification"


def family_of(task: Task) -> Family:
    """The family that serves a task of one label a text."""
    from pipelines.families.encoder import EncoderClassifier

    families: dict[str, Family] = {WHOLE_TEXT: EncoderClassifier()}
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


def retelling_of(task: Task) -> Retelling | None:
    """How texts of a task are told in the tokens of another tokenizer; None where nothing is written."""
    from pipelines.families.retelling import RetoldAnswers, RetoldContinuations

    if isinstance(task, TextToTextTask):
        return RetoldAnswers(task.max_length, task.max_target_length)
    return RetoldContinuations(task.max_length) if task.type == "text-generation" else None


def load_bundle(folder: Path, task: Task) -> Bundle:
    """A bundle that the factory saved for a task. Raises ModelError."""
    return family_of(task).load(folder) if task.type == WHOLE_TEXT else sequence_family_of(task).load(folder)


def save_bundle_of(task: Task, bundle: Bundle, out: Path) -> None:
    """Write a bundle of a task so that plain transformers loads it."""
    from pipelines.families.loading import save_bundle

    if task.type == WHOLE_TEXT:
        family_of(task).save(bundle, out)
    else:
        save_bundle(bundle, out)
