"""Pruning models that answer token by token: whole units step by step, each cut followed by recovery; the vocabulary last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import ShapePruning, Task, Vocabulary
from pipelines.data.clean import CleanData
from pipelines.families.sequences import Example, SequenceFamily
from pipelines.sequences.lessons import lesson_from_labels
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.importance import Importance, kept, layer_importance, magnitude, taylor
from pipelines.techniques.pruning import CalibrationLosses
from pipelines.techniques.slicing import CUTTABLE, DEPTHS, Shape, shape_of, sliced, with_heads
from pipelines.techniques.token_learning import TokenLesson, learn_tokens, lesson_loss
from pipelines.techniques.vocabulary import check_vocabulary, ids_in_use, kept_tokens, prune_vocabulary


def prune_sequences(
    family: SequenceFamily,
    bundle: Bundle,
    data: CleanData,
    signals: Path,
    task: Task,
    wanted: ShapePruning,
    keeper: Keeper,
) -> tuple[Bundle, list[EpochRecord]]:
    """The pruned bundle and the record of its recoveries.

    The vocabulary goes last: signals are of the teacher's tokens, and a kept token's logit does not change when others go.
    """
    lesson = lesson_from_labels(signals, family, bundle, data.train, task, wanted.losses, "prune")
    checked = family.examples(bundle, data.validation, task.max_length)
    records: list[EpochRecord] = []
    for step, shape in enumerate(steps_to(shape_of(bundle.model), wanted), start=1):
        losses = _calibration(family, bundle, lesson, task, wanted)
        bundle = Bundle(_cut(bundle.model, shape, losses, wanted), bundle.tokenizer, bundle.lineage)
        records += learn_tokens(
            family,
            bundle,
            lesson,
            checked,
            wanted.losses,
            wanted.recovery,
            seed=task.seed + step,
            phase=f"prune {step}/{wanted.steps}",
            epochs=wanted.recovery.epochs if step == wanted.steps else wanted.step_epochs,
            keeper=keeper,
        )
    if wanted.vocabulary is not None:
        bundle = _without_tokens(bundle, data, lesson.examples, wanted.vocabulary)
    return bundle, records


def steps_to(start: Shape, wanted: ShapePruning) -> list[Shape]:
    """The shapes after each cut, at even distances; the last is the recipe's. An encoder is cut to as many layers as its decoder."""
    asked = {
        name: getattr(wanted, name) for name in ("num_hidden_layers", *CUTTABLE) if getattr(wanted, name) is not None
    }
    if start.num_encoder_layers and "num_hidden_layers" in asked:
        asked["num_encoder_layers"] = asked["num_hidden_layers"]
    if not asked:
        return []
    shapes = []
    for step in range(1, wanted.steps + 1):
        sizes = {
            name: target + round((getattr(start, name) - target) * (1 - step / wanted.steps))
            for name, target in asked.items()
        }
        if "num_attention_heads" in sizes:
            if step < wanted.steps:
                sizes["num_attention_heads"] = _legal(start, sizes["num_attention_heads"])
            sizes["num_key_value_heads"] = with_heads(start, sizes["num_attention_heads"])
        shapes.append(replace(start, **sizes))
    return shapes


def _legal(start: Shape, heads: int) -> int:
    """The next number of heads, upwards, that leaves whole KV groups."""
    each = start.num_attention_heads // start.num_key_value_heads
    return min(start.num_attention_heads, -(-heads // each) * each)


def _cut(model: Any, shape: Shape, losses: CalibrationLosses, wanted: ShapePruning) -> Any:
    before = shape_of(model)
    widths = [width for width in CUTTABLE if getattr(shape, width) != getattr(before, width)]
    deep = any(getattr(shape, depth) != getattr(before, depth) for depth in DEPTHS)
    units = taylor(model, losses, widths) if wanted.importance == "taylor" else magnitude(model, widths)
    layers = layer_importance(model, losses, "loss") if deep else {}
    return sliced(model, kept(shape, before, Importance(layers, units)))


def _calibration(
    family: SequenceFamily, bundle: Bundle, lesson: TokenLesson, task: Task, wanted: ShapePruning
) -> CalibrationLosses:
    """Recovery's own loss over a fixed random sample of examples, batch by batch."""
    sample = np.random.default_rng(task.seed).permutation(len(lesson.examples))[: wanted.calibration_rows]
    sample = sample[np.argsort([lesson.examples[index].length for index in sample], kind="stable")]
    size = wanted.recovery.batch_size

    def losses(model: Any) -> Iterator[Tensor]:
        model.eval()
        trial = Bundle(model, bundle.tokenizer, {})
        for start in range(0, len(sample), size):
            yield lesson_loss(family, trial, lesson, sample[start : start + size], wanted.losses)

    return losses


def _without_tokens(bundle: Bundle, data: CleanData, examples: Sequence[Example], wanted: Vocabulary) -> Bundle:
    before = bundle.tokenizer
    in_use = kept_tokens(before, [example.seen for example in examples], wanted, ids_in_use(bundle.model))
    smaller = prune_vocabulary(bundle.model, before, in_use)
    check_vocabulary(before, smaller, in_use, [*data.train.texts, *data.train.targets])
    return Bundle(bundle.model, smaller, bundle.lineage)
