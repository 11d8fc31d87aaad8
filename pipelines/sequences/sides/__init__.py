"""The sides of a sequence evaluation: bundles in torch, eager, and the exported one as users run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.config import Task
from pipelines.data.clean import Split
from pipelines.families.sequences import Example
from pipelines.sequences.sides.predicting import Looked, Predictions
from pipelines.techniques.writing_speed import Written


class SequenceSide(Protocol):
    """One of the models compared."""

    #: The tokenizer that its predictions are counted in.
    tokenizer: Any

    def predict(self, split: Split) -> Predictions:
        """Every prediction of a split's rows, with what truly stands before it given."""

    def look(self, examples: Sequence[Example]) -> Looked:
        """Every prediction of some examples in this side's own tokens."""

    def write(self, texts: list[str], new_tokens: int) -> list[Written]:
        """What it writes after each text, the likeliest token each time; a tagger tells the spans that it finds."""


#: (folder, threads, task) -> side.
SideLoader = Callable[[Path, int, Task], SequenceSide]


def torch_side(folder: Path, threads: int, task: Task) -> SequenceSide:
    """A bundle of the factory's in torch, eager. Raises ModelError."""
    from pipelines.sequences.sides.in_torch import TorchTagger, TorchWriter

    side = TorchTagger if task.type == "token-classification" else TorchWriter
    return side(folder, threads, task)


def exported_side(folder: Path, threads: int, task: Task) -> SequenceSide:
    """An exported bundle: predictions from its graphs, texts through slm_registry, as a downstream team calls it."""
    from pipelines.sequences.sides.exported import Exported

    return Exported(folder, threads, task)
