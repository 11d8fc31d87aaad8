"""One student that holds many: every part of it is a view, a model of the part's shape whose matrices are the first rows and columns
of the whole's. Trained by the sandwich rule, the whole and the smallest part and some drawn between (Yu & Huang 2019), the parts taught
by the whole's own answer beside the stored signals (in-place distillation)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.bundle import Bundle
from pipelines.config import Losses, StudentElastic, Training
from pipelines.data.clean import Split
from pipelines.errors import ModelError
from pipelines.families.base import Family, TokenIds
from pipelines.techniques import losses as terms
from pipelines.techniques.course import EpochRecord, Keeper, Score
from pipelines.techniques.distilling import answered_loss, batch_loss
from pipelines.techniques.lessons import Lesson, Reader
from pipelines.techniques.pruning import keep_units, swap, unit_importance
from pipelines.techniques.scoring import score
from pipelines.techniques.shapes import Slice
from pipelines.techniques.training import Piece, compact_embeddings, train
from pipelines.techniques.vocabulary.choices import Cut


class FirstOf(nn.Module):  # type: ignore[misc]
    """The first outputs and inputs of a linear layer: its weights, not a copy."""

    def __init__(self, whole: nn.Linear, out_features: int, in_features: int) -> None:
        super().__init__()
        self.whole, self.out_features, self.in_features = whole, out_features, in_features

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features] of the whole's weight."""
        return self.whole.weight[: self.out_features, : self.in_features]

    @property
    def bias(self) -> Tensor | None:
        """[out_features] of the whole's bias."""
        return None if self.whole.bias is None else self.whole.bias[: self.out_features]

    def forward(self, states: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return F.linear(states, self.weight, self.bias)


def slices_of(wanted: StudentElastic) -> list[Slice]:
    """Every part that the recipe names, the whole first and the smallest last."""
    widths, heads = wanted.intermediate_sizes or [0], wanted.num_attention_heads or [0]
    vocabularies = range(len(wanted.vocabularies))
    return [
        Slice(tuple(layers), width, count, vocabulary)
        for layers, width, count, vocabulary in product(wanted.layers, widths, heads, vocabularies)
    ]


def view(family: Family, model: Any, part: Slice) -> Any:
    """A model of the part's shape that shares the whole's weights, whatever is in training. ModelError where the whole has no such part."""
    shared: dict[int, Any] = {id(weight): weight for weight in [*model.parameters(), *model.buffers()]}
    small = copy.deepcopy(model, shared)
    _keep_layers(family, small, part)
    if part.intermediate_size == 0:
        return small
    pruned: dict[int, list[int]] = {}
    for index, units in enumerate(family.units(small)):
        hidden, columns = units.ffn_down.out_features, part.num_attention_heads * units.head_size
        _check(part, units.ffn_down.in_features, there := units.queries.out_features // units.head_size)
        for up in units.ffn_up:
            swap(small, up, FirstOf(up, part.intermediate_size, hidden))
        swap(small, units.ffn_down, FirstOf(units.ffn_down, hidden, part.intermediate_size))
        for projection in (units.queries, units.keys, units.values):
            swap(small, projection, FirstOf(projection, columns, hidden))
        swap(small, units.attention_out, FirstOf(units.attention_out, hidden, columns))
        pruned[index] = list(range(part.num_attention_heads, there))
    family.narrowed(small, pruned)
    return small


def extract(family: Family, model: Any, part: Slice) -> Any:
    """A plain model of the part's shape with weights of its own; its vocabulary is still the whole's."""
    small = copy.deepcopy(model)
    _keep_layers(family, small, part)
    if part.intermediate_size:
        for units in family.units(small):
            _check(part, units.ffn_down.in_features, units.queries.out_features // units.head_size)
        keep = (range(part.intermediate_size), range(part.num_attention_heads))
        keep_units(family, small, [keep] * family.depth(small))
    return small


def _keep_layers(family: Family, model: Any, part: Slice) -> None:
    there = family.teacher_layers(model)
    missing = [layer for layer in part.layers if layer not in there]
    if missing:
        raise ModelError(
            f"the elastic student holds teacher layers {there}, not {missing}; name others in distill.student.layers"
        )
    family.drop_layers(model, [there.index(layer) for layer in part.layers])


def _check(part: Slice, width: int, heads: int) -> None:
    if part.intermediate_size > width or part.num_attention_heads > heads:
        raise ModelError(
            f"a part of FFN {part.intermediate_size} and {part.num_attention_heads} heads, but the elastic student has {width} and {heads}; "
            "name smaller ones in distill.student"
        )


@dataclass(frozen=True)
class Elastic:
    """An elastic student in training: its parts, and what each vocabulary reads. Token ids of every vocabulary are the whole's."""

    family: Family
    student: Bundle
    wanted: StudentElastic
    readers: Sequence[Reader]
    checked: Sequence[Sequence[TokenIds]]
    labels: Sequence[int]
    parts: Sequence[Slice]


def elastic_student(
    family: Family,
    student: Bundle,
    wanted: StudentElastic,
    cuts: Sequence[Cut],
    lesson: Lesson,
    validation: Split,
    weights: Losses,
    *,
    max_length: int,
    folds: int | None,
    seed: int,
) -> Elastic:
    """Read the lesson in every vocabulary.

    Raises ModelError where losses a token meet a whole that cuts most texts otherwise, or sizes are named of an architecture that
    has none to cut.
    """
    if wanted.intermediate_sizes:
        family.units(student.model)
    readers = [
        Reader(family, cut, lesson, weights.of_logits if at else weights, max_length, folds, seed)
        for at, cut in enumerate(cuts)
    ]
    checked = [cut.encode(family, validation.texts, max_length) for cut in cuts]
    return Elastic(family, student, wanted, readers, checked, validation.labels, slices_of(wanted))


def sort_units(elastic: Elastic, weights: Losses, rows: np.ndarray, batch_size: int) -> None:
    """Put FFN columns and heads of every layer in order of importance, in place; the function stays what it is.

    Importance is summed over the depths, each in full width: of the whole alone it would be measured where a student cut from its
    teacher has no loss yet.
    """
    family, model = elastic.family, elastic.student.model
    if not elastic.wanted.intermediate_sizes:
        return
    there = family.teacher_layers(model)
    columns: dict[int, Tensor] = {}
    heads: dict[int, Tensor] = {}
    for layers in elastic.wanted.layers:
        trial = copy.deepcopy(model)
        family.drop_layers(trial, [there.index(layer) for layer in layers])
        losses = _calibration(elastic, weights, rows, batch_size)
        found = unit_importance(family, trial, losses, elastic.wanted.importance)
        for layer, width, head in zip(layers, *found, strict=True):
            columns[layer] = columns.get(layer, torch.zeros_like(width)) + width / width.sum()
            heads[layer] = heads.get(layer, torch.zeros_like(head)) + head / head.sum()
    order = [(_descending(columns[layer]), _descending(heads[layer])) for layer in elastic.wanted.layers[0]]
    keep_units(family, model, order)


def _descending(importance: Tensor) -> list[int]:
    order: list[int] = torch.argsort(importance, descending=True, stable=True).tolist()
    return order


def _calibration(elastic: Elastic, weights: Losses, rows: np.ndarray, batch_size: int) -> Any:
    reading = elastic.readers[0].whole
    ordered = rows[np.argsort([len(reading.encoded[row]) for row in rows], kind="stable")]

    def losses(model: Any) -> Iterator[Tensor]:
        model.eval()
        trial = Bundle(model, elastic.student.tokenizer, {})
        for start in range(0, len(ordered), batch_size):
            yield batch_loss(elastic.family, trial, reading, ordered[start : start + batch_size], weights)

    return losses


def learn_whole(
    elastic: Elastic, weights: Losses, settings: Training, *, seed: int, keeper: Keeper
) -> list[EpochRecord]:
    """Train the whole alone, in place, for `whole_epochs`; one record an epoch.

    Units are put in order of what they are worth to a trained whole, and parts begin as parts of it (Cai et al. 2020).
    """
    family, student, reader = elastic.family, elastic.student, elastic.readers[0]

    def objective(piece: Piece, random: np.random.Generator) -> Tensor:
        reading, whole = reader.read(piece.batch, random)
        return answered_loss(family, student, reading, whole, piece.places, weights)[0]

    def validate() -> Score:
        return score(family, student.model, student.tokenizer, elastic.checked[0], elastic.labels)

    epochs = elastic.wanted.whole_epochs
    if epochs == 0:
        return []
    with compact_embeddings(student.model, _rows(elastic)):
        return train(
            student.model,
            _lengths(elastic),
            objective,
            validate,
            settings,
            seed=seed,
            phase="whole",
            epochs=epochs,
            keeper=keeper,
        )


def _lengths(elastic: Elastic) -> list[int]:
    return [len(row) for row in elastic.readers[0].whole.encoded]


def _rows(elastic: Elastic) -> Iterator[TokenIds]:
    """Every text that is read or checked, in every vocabulary."""
    return chain.from_iterable([*(reader.rows() for reader in elastic.readers), *elastic.checked])


def learn_elastic(
    elastic: Elastic, weights: Losses, settings: Training, *, seed: int, keeper: Keeper
) -> list[EpochRecord]:
    """Train the elastic student in place; one record an epoch, of the mean over the whole, a middle part and the smallest."""
    model = elastic.student.model
    with compact_embeddings(model, _rows(elastic)):
        views = _Views(elastic)

        def objective(piece: Piece, random: np.random.Generator) -> Tensor:
            return _sandwich(elastic, views, piece, weights, random)

        def validate() -> Score:
            return _mean_score(elastic, views)

        return train(
            model,
            _lengths(elastic),
            objective,
            validate,
            settings,
            seed=seed,
            phase="distill",
            epochs=settings.epochs,
            keeper=keeper,
        )


class _Views:
    """Parts as they are first asked for; they stay as long as the embeddings are those of this training."""

    def __init__(self, elastic: Elastic) -> None:
        self._elastic = elastic
        self._made: dict[Slice, Any] = {}

    def of(self, part: Slice, training: bool) -> Bundle:
        """A part, in training or evaluation mode."""
        shape = Slice(part.layers, part.intermediate_size, part.num_attention_heads, 0)
        if shape not in self._made:
            self._made[shape] = view(self._elastic.family, self._elastic.student.model, shape)
        return Bundle(self._made[shape].train(training), self._elastic.student.tokenizer, {})


def _sandwich(elastic: Elastic, views: _Views, piece: Piece, weights: Losses, rng: np.random.Generator) -> Tensor:
    """Mean loss of the whole, the smallest part and some drawn ones over a piece of a batch; the parts learn from the whole too.

    Hidden states are the whole's lesson alone: one layer cannot answer to the teacher's from two depths (docs/decisions.md, 56).
    """
    family, parts = elastic.family, elastic.parts
    reading, whole = elastic.readers[0].read(piece.batch, rng)
    total, leader = answered_loss(family, elastic.student, reading, whole, piece.places, weights)
    drawn = [parts[index] for index in rng.integers(0, len(parts), elastic.wanted.random_slices)]
    for part in (parts[-1], *drawn):
        reading, whole = elastic.readers[part.vocabulary].read(piece.batch, rng)
        bundle = views.of(part, training=True)
        loss, logits = answered_loss(family, bundle, reading, whole, piece.places, weights.of_logits)
        if elastic.wanted.in_place > 0:
            loss = loss + piece.share * elastic.wanted.in_place * terms.kl(
                logits.float(), leader.detach().float(), weights.temperature
            )
        total = total + loss
    return total / (2 + len(drawn))


def _mean_score(elastic: Elastic, views: _Views) -> Score:
    parts = elastic.parts
    scores = []
    for part in dict.fromkeys((parts[0], parts[len(parts) // 2], parts[-1])):
        bundle = views.of(part, training=False)
        scores.append(
            score(elastic.family, bundle.model, bundle.tokenizer, elastic.checked[part.vocabulary], elastic.labels)
        )
    return Score(float(np.mean([each.accuracy for each in scores])), float(np.mean([each.loss for each in scores])))
