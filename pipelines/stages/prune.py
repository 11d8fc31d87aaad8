"""Stage `prune`: tokens, layers, FFN columns and heads go step by step; after each cut the student recovers on the signals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipelines import ranks
from pipelines.bundle import Bundle, extend_lineage
from pipelines.config import AnyBudget, ChosenPruning, ChosenShape, NoTechnique, ShapePruning, StructuredPruning, Task
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, load_clean
from pipelines.exploring.building import build_chosen
from pipelines.exploring.front import read_front
from pipelines.exploring.recoveries import open_recovering
from pipelines.families import family_of, load_bundle, save_bundle_of, sequence_family_of
from pipelines.families.base import Family
from pipelines.reproducible import fix_randomness
from pipelines.sequences.pruning import prune_sequences
from pipelines.signals import read_signals
from pipelines.stages import Output
from pipelines.techniques.course import EpochRecord, Keeper
from pipelines.techniques.distilling import batch_loss, learn
from pipelines.techniques.lessons import Lesson, lesson_from, read_lesson
from pipelines.techniques.levers import levers_left_out
from pipelines.techniques.pruning import CalibrationLosses, prune_to, shape_of, targets
from pipelines.techniques.vocabulary import check_vocabulary, ids_in_use, kept_tokens, prune_vocabulary


def prune(
    clean: Path,
    signals: Path,
    student: Path,
    front: Path,
    pruned: Output,
    curve: Output,
    task: Task,
    budget: AnyBudget | None,
    prune: NoTechnique | StructuredPruning | ChosenPruning | ShapePruning | ChosenShape,
    keeper: Keeper,
) -> None:
    """Write the pruned bundle and the loss curve of its recoveries.

    Raises ModelError where the recipe asks for more units than the student has, or its architecture forbids the cut; BudgetError
    where no point of the front holds the budget.
    """
    fix_randomness(task)
    records: list[EpochRecord] = []
    bundle = load_bundle(student, task)
    if isinstance(prune, StructuredPruning):
        family, data = family_of(task), load_clean(clean)
        lesson = lesson_from(data, read_signals(signals)).without(levers_left_out(bundle.lineage))
        _prune_tables(family, bundle, data, lesson, task, prune)
        records = _prune_steps(family, bundle, data, lesson, task, prune, keeper)
    if isinstance(prune, ShapePruning):
        tokens, data = sequence_family_of(task), load_clean(clean)
        bundle, records = prune_sequences(tokens, bundle, data, signals, task, prune, keeper)
    facts: dict[str, Any] = {"params": prune.model_dump()} | ranks.facts()
    if isinstance(prune, ChosenPruning | ChosenShape) and budget is not None:
        explored = read_front(front)
        recovering = open_recovering(student, clean, signals, explored.teacher, task, prune, keeper)
        bundle, records, point = build_chosen(recovering, explored.points, budget)
        facts |= {"budget": budget.model_dump(), "chosen": asdict(point)}
        facts |= {"quantization": explored.forms[point.quantization]}
    bundle.lineage = extend_lineage(bundle.lineage, "prune", facts)
    save_bundle_of(task, bundle, pruned)
    write_curve(curve, records)


def _prune_tables(
    family: Family, bundle: Bundle, data: CleanData, lesson: Lesson, task: Task, wanted: StructuredPruning
) -> None:
    """Embedding rows: positions that no text reaches, tokens that the domain does not use."""
    family.trim_positions(bundle.model, task.max_length)
    if wanted.vocabulary is None:
        return
    before = bundle.tokenizer
    # Synthetic text has typos; its odd pieces are no reason to keep a token.
    encoded = family.encode(before, data.written, task.max_length)
    kept = kept_tokens(before, encoded, wanted.vocabulary, ids_in_use(bundle.model))
    bundle.tokenizer = prune_vocabulary(bundle.model, before, kept)
    check_vocabulary(before, bundle.tokenizer, kept, lesson.texts)


def _prune_steps(
    family: Family,
    bundle: Bundle,
    data: CleanData,
    lesson: Lesson,
    task: Task,
    wanted: StructuredPruning,
    keeper: Keeper,
) -> list[EpochRecord]:
    records: list[EpochRecord] = []
    losses = _calibration(family, bundle, lesson, task, wanted)
    shapes = targets(shape_of(family, bundle.model, wanted), wanted)
    for step, shape in enumerate(shapes, start=1):
        prune_to(family, bundle.model, shape, losses, wanted.importance)
        records += learn(
            family,
            bundle,
            lesson,
            data.validation,
            wanted.losses,
            wanted.recovery,
            max_length=task.max_length,
            seed=task.seed + step,
            phase=f"prune {step}/{len(shapes)}",
            epochs=wanted.recovery.epochs if step == len(shapes) else wanted.step_epochs,
            keeper=keeper,
        )
    return records


def _calibration(
    family: Family, bundle: Bundle, lesson: Lesson, task: Task, wanted: StructuredPruning
) -> CalibrationLosses:
    """Recovery's own loss over a fixed random sample of training text, batch by batch."""
    rng = np.random.default_rng(task.seed)
    sample = rng.permutation(len(lesson.texts))[: wanted.calibration_rows]
    reading = read_lesson(family, bundle.tokenizer, lesson, wanted.losses, task.max_length)
    sample = sample[np.argsort([len(reading.encoded[index]) for index in sample], kind="stable")]
    size = wanted.recovery.batch_size

    def losses(model: Any) -> Iterator[Tensor]:
        model.eval()
        trial = Bundle(model, bundle.tokenizer, {})
        for start in range(0, len(sample), size):
            yield batch_loss(family, trial, reading, sample[start : start + size], wanted.losses)

    return losses
