"""Every prediction of a split's rows by one model: what the truth cost it, and what it held likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipelines.bundle import Bundle
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families.sequences import Batch, Example, Rows, SequenceFamily

#: Tokens of a forward pass while predicting, and predictions whose logits are looked at together.
BATCH_TOKENS, LOOKED_AT = 1024, 1024


@dataclass(frozen=True)
class Predictions:
    """N predictions, each made with what truly stands before it given, in the order of the rows.

    `nats` of the true class, `truth` and `likeliest` as places in `names`, `confidence` in the likeliest; `lengths` are the rows'.
    """

    nats: np.ndarray
    truth: np.ndarray
    likeliest: np.ndarray
    confidence: np.ndarray
    lengths: list[int]
    names: list[str]

    def by_row(self, values: np.ndarray) -> list[np.ndarray]:
        """Values [N] as an array a row."""
        return [values[start:stop] for start, stop in pairwise(np.cumsum([0, *self.lengths]))]

    def named(self, classes: np.ndarray) -> list[list[str]]:
        """Classes [N] by name, a list a row."""
        return [[self.names[at] for at in row] for row in self.by_row(classes)]


@dataclass(frozen=True)
class Looked:
    """N predictions in the order of their examples; see Predictions."""

    nats: np.ndarray
    truth: np.ndarray
    likeliest: np.ndarray
    confidence: np.ndarray


def predictions(
    family: SequenceFamily, bundle: Bundle, split: Split, max_length: int, rows_of: Callable[[Batch], Rows]
) -> Predictions:
    """All predictions of a split by the model behind `rows_of`. Raises ModelError where they are not as many as the rows have."""
    examples = family.examples(bundle, split, max_length)
    lengths = family.row_lengths(bundle, split, examples)
    found = look(family, bundle, examples, rows_of)
    if sum(lengths) != len(found.nats):
        raise ModelError(f"the examples hold {len(found.nats)} predictions, their {len(lengths)} rows {sum(lengths)}")
    return Predictions(found.nats, found.truth, found.likeliest, found.confidence, lengths, family.class_names(bundle))


def look(
    family: SequenceFamily, bundle: Bundle, examples: Sequence[Example], rows_of: Callable[[Batch], Rows]
) -> Looked:
    """Every prediction of the examples, made in batches of similar length."""
    starts = np.cumsum([0, *(len(example.classes) for example in examples)])
    kinds = (np.float64, np.int64, np.int64, np.float64)
    arrays = [np.zeros(starts[-1], kind) for kind in kinds]
    for batch in _batches(examples):
        inputs = family.collate(bundle, [examples[at] for at in batch])
        places = np.concatenate([np.arange(starts[at], starts[at + 1]) for at in batch])
        for array, values in zip(arrays, _looked_at(rows_of(inputs), inputs), strict=True):
            array[places] = values
    return Looked(*arrays)


def _batches(examples: Sequence[Example]) -> list[list[int]]:
    """Places of examples, in batches of similar length and at most BATCH_TOKENS tokens, one example at least."""
    batches: list[list[int]] = []
    for at in sorted(range(len(examples)), key=lambda place: examples[place].length):
        if batches and (len(batches[-1]) + 1) * examples[at].length <= BATCH_TOKENS:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def _looked_at(rows: Rows, batch: Batch) -> list[np.ndarray]:
    """Nats, true class, likeliest class and its probability of each prediction of a batch."""
    import torch

    parts: list[list[np.ndarray]] = [[], [], [], []]
    with torch.inference_mode():
        for start in range(0, len(batch.classes), LOOKED_AT):
            where, classes = slice(start, start + LOOKED_AT), batch.classes[start : start + LOOKED_AT]
            logs = rows.head(rows.features[where]).float().log_softmax(-1)
            best = logs.max(-1)
            found = (-logs.gather(1, classes[:, None])[:, 0], classes, best.indices, best.values.exp())
            for part, values in zip(parts, found, strict=True):
                part.append(values.numpy())
    return [np.concatenate(part) if part else np.zeros(0) for part in parts]
