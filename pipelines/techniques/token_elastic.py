"""One student that holds many, of models that answer token by token: a part is a model of its shape that reads its tensors off the
whole's, the first units of every width, in whatever architecture they can be cut. Trained by the sandwich rule with in-place
distillation (Yu & Huang 2019), as classifiers are in elastic.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.bundle import Bundle
from pipelines.config import ElasticTokens, TokenLosses, Training
from pipelines.errors import ModelError
from pipelines.families.sequences import Example, Rows, SequenceFamily
from pipelines.families.widths import widths_of
from pipelines.techniques import divergences
from pipelines.techniques.axes import EVERYWHERE, GROUPS, HEADS, Parts, layers_with, stacks_of
from pipelines.techniques.chunking import Where, chunked
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.cutting import Kept, cut, narrowed, sources_of, taken
from pipelines.techniques.importance import magnitude, taylor
from pipelines.techniques.probing import probed
from pipelines.techniques.shapes import Slice
from pipelines.techniques.token_learning import (
    LossScore,
    TokenLesson,
    check_tokens,
    lesson_loss,
    mean_loss,
    score_tokens,
    share_of,
    teacher_rows,
)
from pipelines.techniques.training import train

DEPTH, COLUMNS = "num_hidden_layers", "intermediate_size"
Answer = TypeVar("Answer")


def token_slices(wanted: ElasticTokens) -> list[Slice]:
    """Every part that the recipe names, the whole first and the smallest last."""
    widths, heads = wanted.intermediate_sizes or [0], wanted.num_attention_heads or [0]
    return [Slice(tuple(layers), width, count, 0) for layers, width, count in product(wanted.layers, widths, heads)]


@dataclass(frozen=True)
class Anatomy:
    """Where the layers and the widths of an elastic student stand, and which teacher layers it has."""

    layers: tuple[int, ...]
    stacks: Mapping[str, str]
    parts: Mapping[str, Parts]

    def kept(self, model: Any, part: Slice) -> Kept:
        """What stays of the whole in a part. Raises ModelError where the whole has no such part."""
        units: dict[str, dict[str, range]] = {}
        for width, count in ((COLUMNS, part.intermediate_size), (HEADS, part.num_attention_heads)):
            if count:
                _check(model, width, count)
                units[width] = dict.fromkeys(layers_with(self.parts[width], self.stacks), range(count))
        return Kept({DEPTH: [self.layers.index(layer) for layer in part.layers]}, units)

    def plain(self, model: Any, part: Slice) -> Any:
        """A plain model of the part's shape with weights of its own."""
        return cut(model, self.kept(model, part), self.parts, self.stacks)


def anatomy_of(model: Any, wanted: ElasticTokens) -> Anatomy:
    """Find what the parts of a student are cut along. Raises ModelError where this architecture cannot be cut so."""
    stacks = stacks_of(model)
    named = {COLUMNS: wanted.intermediate_sizes, HEADS: wanted.num_attention_heads}
    parts = {width: probed(model, width, stacks) for width, sizes in named.items() if sizes}
    return Anatomy(tuple(wanted.layers[0]), stacks, parts)


def _check(model: Any, width: str, count: int) -> None:
    widths = widths_of(model.config)
    if count > widths[width]:
        raise ModelError(
            f"a part of {width} {count}, but the elastic student has {widths[width]}; name smaller ones in distill.student"
        )
    each = widths[HEADS] // widths.get(GROUPS, widths[HEADS])
    if width == HEADS and count % each:
        raise ModelError(
            f"a part of {count} heads, but the elastic student has KV groups of {each}: the first heads must be whole groups; "
            "name multiples in distill.student.num_attention_heads"
        )


class View:
    """A part that shares the whole's weights, whatever is in training. It holds no weights of its own."""

    def __init__(self, whole: Any, part: Slice, anatomy: Anatomy) -> None:
        keep = anatomy.kept(whole, part)
        self._whole = whole
        smaller = cut(whole, keep, anatomy.parts, anatomy.stacks)
        self._sources = sources_of(whole, smaller, keep, anatomy.parts, anatomy.stacks)
        self._small = _Holder(smaller)
        for weight in self._small.parameters():
            weight.data = weight.data.new_empty(0)

    def run(self, what: Callable[[Any], Answer], training: bool) -> Answer:
        """What a function makes of the part as a model."""
        tensors = taken(self._whole.state_dict(keep_vars=True), self._sources)
        named = {f"model.{name}": tensor for name, tensor in tensors.items()}
        answer: Answer = torch.func.functional_call(self._small.train(training), named, (what,))
        return answer


class _Holder(nn.Module):  # type: ignore[misc]
    """A model that is handed to a function while its tensors are others."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, what: Callable[[Any], Answer]) -> Answer:
        return what(self.model)


@dataclass(frozen=True)
class TokenElastic:
    """An elastic student in training: what it learns from, what it is checked on, and its parts."""

    family: SequenceFamily
    student: Bundle
    wanted: ElasticTokens
    lesson: TokenLesson
    checked: Sequence[Example]
    parts: Sequence[Slice]
    anatomy: Anatomy


def token_elastic(
    family: SequenceFamily, student: Bundle, wanted: ElasticTokens, lesson: TokenLesson, checked: Sequence[Example]
) -> TokenElastic:
    """Open a student for training.

    Raises ModelError where the examples are not those that the teacher saw, or the architecture has no such parts.
    """
    check_tokens(lesson)
    anatomy, parts = anatomy_of(student.model, wanted), token_slices(wanted)
    for part in parts:
        anatomy.kept(student.model, part)
    return TokenElastic(family, student, wanted, lesson, checked, parts, anatomy)


def learn_whole(
    elastic: TokenElastic, weights: TokenLosses, settings: Training, *, seed: int, keeper: Keeper
) -> list[EpochRecord]:
    """Train the whole alone, in place, for `whole_epochs`; one record an epoch."""
    family, student = elastic.family, elastic.student
    if elastic.wanted.whole_epochs == 0:
        return []
    return train(
        student.model,
        _lengths(elastic),
        lambda piece, _: (
            share_of(piece, elastic.lesson.examples)
            * lesson_loss(family, student, elastic.lesson, piece.texts, weights)
        ),
        lambda: score_tokens(family, student, elastic.checked),
        settings,
        seed=seed,
        phase="whole",
        epochs=elastic.wanted.whole_epochs,
        keeper=keeper,
    )


def _lengths(elastic: TokenElastic) -> list[int]:
    return [example.length for example in elastic.lesson.examples]


def sort_units(elastic: TokenElastic, weights: TokenLosses, sample: np.ndarray, batch_size: int) -> None:
    """Put the units of every width in order of importance, in place; the function stays what it is.

    Importance is summed over the depths, each in full width; heads move with their KV group, groups by what their heads are worth.
    """
    anatomy, model = elastic.anatomy, elastic.student.model
    widths, total = list(anatomy.parts), dict[tuple[str, str], Tensor]()
    for layers in elastic.wanted.layers if widths else []:
        trial = anatomy.plain(model, Slice(tuple(layers), 0, 0, 0))
        for width, by_layer in _importance(elastic, trial, widths, weights, sample, batch_size).items():
            for layer, values in by_layer.items():
                there = (width, _in_the_whole(anatomy, layers, layer))
                total[there] = total.get(there, torch.zeros_like(values)) + values / values.sum()
    order = {
        width: {layer: _order(width, values, model) for (named, layer), values in total.items() if named == width}
        for width in widths
    }
    with torch.no_grad():
        model.load_state_dict(narrowed(model, order, anatomy.parts, anatomy.stacks))


def _importance(
    elastic: TokenElastic,
    trial: Any,
    widths: Sequence[str],
    weights: TokenLosses,
    sample: np.ndarray,
    batch_size: int,
) -> Mapping[str, Mapping[str, Tensor]]:
    if elastic.wanted.importance == "magnitude":
        return magnitude(trial, widths)
    examples = elastic.lesson.examples
    ordered = sample[np.argsort([examples[row].length for row in sample], kind="stable")]

    def losses(model: Any) -> Iterator[Tensor]:
        model.eval()
        bundle = Bundle(model, elastic.student.tokenizer, {})
        for start in range(0, len(ordered), batch_size):
            yield lesson_loss(elastic.family, bundle, elastic.lesson, ordered[start : start + batch_size], weights)

    return taylor(trial, losses, widths)


def _in_the_whole(anatomy: Anatomy, layers: Sequence[int], name: str) -> str:
    """What a layer of a trial of these teacher layers is called in the whole."""
    prefix = anatomy.stacks[DEPTH]
    if name == EVERYWHERE:
        return name
    return f"{prefix}{anatomy.layers.index(layers[int(name.removeprefix(prefix))])}"


def _order(width: str, values: Tensor, model: Any) -> list[int]:
    """Units by falling worth; of heads group by group, in each head by head."""
    if width != HEADS:
        return _descending(values)
    by_group = values.reshape(widths_of(model.config).get(GROUPS, len(values)), -1)
    each = by_group.shape[1]
    return [group * each + head for group in _descending(by_group.sum(1)) for head in _descending(by_group[group])]


def _descending(values: Tensor) -> list[int]:
    order: list[int] = torch.argsort(values, descending=True, stable=True).tolist()
    return order


def learn_elastic(
    elastic: TokenElastic, weights: TokenLosses, settings: Training, *, seed: int, keeper: Keeper
) -> list[EpochRecord]:
    """Train the elastic student in place; one record an epoch, of the mean over the whole, a middle part and the smallest."""
    views = _Views(elastic)
    return train(
        elastic.student.model,
        _lengths(elastic),
        lambda piece, random: (
            share_of(piece, elastic.lesson.examples) * _sandwich(elastic, views, piece.texts, weights, random)
        ),
        lambda: _mean_score(elastic, views),
        settings,
        seed=seed,
        phase="distill",
        epochs=settings.epochs,
        keeper=keeper,
    )


class _Views:
    """Parts as they are first asked for."""

    def __init__(self, elastic: TokenElastic) -> None:
        self._elastic = elastic
        self._made: dict[Slice, View] = {}

    def of(self, part: Slice) -> View:
        """A part."""
        if part not in self._made:
            self._made[part] = View(self._elastic.student.model, part, self._elastic.anatomy)
        return self._made[part]


def _sandwich(
    elastic: TokenElastic, views: _Views, batch: np.ndarray, weights: TokenLosses, rng: np.random.Generator
) -> Tensor:
    """Mean loss of the whole, the smallest part and some drawn ones over one batch; the parts learn from the whole too."""
    family, student, parts = elastic.family, elastic.student, elastic.parts
    inputs = family.collate(student, [elastic.lesson.examples[index] for index in batch])
    said = teacher_rows(elastic.lesson, batch, weights)
    leader = family.rows(student.model, inputs)
    total = mean_loss(leader, inputs.classes, said, weights)
    drawn = [parts[index] for index in rng.integers(0, len(parts), elastic.wanted.random_slices)]

    def loss_of(model: Any) -> Tensor:
        rows = family.rows(model, inputs)
        loss = mean_loss(rows, inputs.classes, said, weights)
        share = elastic.wanted.in_place
        return loss + share * _behind(rows, leader, weights) if share > 0 else loss

    for part in (parts[-1], *drawn):
        total = total + views.of(part).run(loss_of, training=True)
    return total / (2 + len(drawn))


def _behind(rows: Rows, leader: Rows, weights: TokenLosses) -> Tensor:
    """KL from a part's answer to the whole's, mean over predictions; no gradient reaches the whole."""

    def rows_loss(logits: Tensor, where: Where) -> Tensor:
        with torch.no_grad():
            said = divergences.Dense(leader.head(leader.features[where]).float())
        return divergences.by_row("kl", logits, said, weights.temperature, weights.mixture).sum()

    return chunked(rows.features, rows.head, rows_loss, weights.chunk_rows) / len(rows.features)


def _mean_score(elastic: TokenElastic, views: _Views) -> LossScore:
    parts, tokenizer = elastic.parts, elastic.student.tokenizer

    def score(model: Any) -> LossScore:
        return score_tokens(elastic.family, Bundle(model, tokenizer, {}), elastic.checked)

    chosen = dict.fromkeys((parts[0], parts[len(parts) // 2], parts[-1]))
    scores = [views.of(part).run(score, training=False) for part in chosen]
    return LossScore(float(np.mean([each.accuracy for each in scores])), float(np.mean([each.loss for each in scores])))
