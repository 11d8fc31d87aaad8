"""The seam of models that answer token by token. Techniques see examples, rows of features and a head, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import FreshModel, FreshStudent, OnPolicy, TeacherTexts
from pipelines.data.clean import CleanData, Split
from pipelines.families.base import TokenIds
from pipelines.families.loading import Trusted


@dataclass(frozen=True)
class Example:
    """What a model reads at once, and the true class of each of its P predictions.

    `places` are the positions of the sequence at which it predicts; `classes` are as many, NO_LABEL where none is known.
    """

    ids: TokenIds
    places: Sequence[int]
    classes: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens that pass through the model: what a batch is bucketed by."""
        return len(self.ids) + len(self.answer)

    @property
    def answer(self) -> Sequence[int]:
        """The classes, where they are not tokens of `ids` already."""
        reread = [self.ids[place + 1] if place + 1 < len(self.ids) else None for place in self.places]
        return () if reread == list(self.classes) else self.classes

    @property
    def seen(self) -> list[int]:
        """What a teacher reads of it: what its signals are stored beside."""
        return [*self.ids, *self.answer]


@dataclass(frozen=True)
class Batch:
    """B examples as a model's inputs; N predictions at (row, place), in the order of the examples."""

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor
    classes: Tensor


#: Inputs of an exported file by name.
Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Rows:
    """One forward pass: features [N, H], a row a prediction, and the head that makes logits [n, C] of some of them."""

    features: Tensor
    head: Callable[[Tensor], Tensor]


class SequenceFamily(Protocol):
    """What differs between causal models, encoder-decoders and taggers."""

    #: transformers' Auto class.
    auto: str

    def load(self, folder: Path) -> Bundle:
        """Load a bundle that the factory saved. Raises ModelError."""

    def load_pretrained(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        """Load a pretrained model that is to learn from this data. Raises ModelError."""

    def load_ready(self, folder: Path, data: CleanData, trusted: Trusted | None) -> Bundle:
        """Load a model that knows the task already. Raises ModelError where it lacks a tensor or has other labels than the data."""

    def fresh(self, choice: FreshModel, data: CleanData, max_length: int) -> Bundle:
        """A model of fresh weights with a tokenizer trained on the training text."""

    def resized(self, teacher: Bundle, choice: FreshStudent) -> Bundle:
        """A model of fresh weights, of the teacher's architecture in other sizes."""

    def examples(self, bundle: Bundle, split: Split, max_length: int) -> list[Example]:
        """All of a split, cut into examples."""

    def collate(self, bundle: Bundle, examples: Sequence[Example]) -> Batch:
        """Pad examples to one batch."""

    def rows(self, model: Any, batch: Batch) -> Rows:
        """The features of every prediction, and the model's head."""

    def write(
        self, bundle: Bundle, examples: Sequence[Example], how: TeacherTexts | OnPolicy, seed: int
    ) -> list[Example]:
        """What the model writes after the prompts in these examples, as examples; empty where the family writes nothing."""

    def row_lengths(self, bundle: Bundle, split: Split, examples: Sequence[Example]) -> list[int]:
        """Predictions of each row of a split, in the order of its examples' predictions."""

    def class_names(self, bundle: Bundle) -> list[str]:
        """What the classes of its predictions are called: tokens as the tokenizer writes them, or tags."""

    def export(self, bundle: Bundle, out: Path, max_length: int) -> Sequence[str]:
        """Write float32 ONNX files into a folder; their names. Raises ModelError where the architecture cannot be exported."""

    def check_export(self, bundle: Bundle, out: Path, examples: Sequence[Example], tolerance: float) -> float:
        """Largest difference of logits, exported files against torch; ModelError beyond the tolerance, or where tokens differ."""

    def feeds(self, bundle: Bundle, out: Path, examples: Sequence[Example]) -> dict[str, list[Feed]]:
        """For each exported file its inputs, one unpadded example each: what a quantizer measures on."""

    def text_bytes(self, split: Split) -> int:
        """UTF-8 bytes of what is predicted, a separator a text included."""


def token_names(bundle: Bundle) -> list[str]:
    """A tokenizer's tokens in the order of their ids; rows of the head beyond them have their number's name."""
    known = bundle.tokenizer.convert_ids_to_tokens(list(range(len(bundle.tokenizer))))
    beyond = range(len(known), getattr(bundle.model.config, "vocab_size", None) or len(known))
    return [f"<{at}>" if token is None else str(token) for at, token in enumerate(known)] + [f"<{at}>" for at in beyond]
