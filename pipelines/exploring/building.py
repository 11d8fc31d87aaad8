"""The chosen point: cut from the elastic student, recovered alone, and held against the budget's margin; else the next one."""

from __future__ import annotations

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import Budget, ChosenPruning, Task
from pipelines.data.clean import CleanData
from pipelines.errors import BudgetError
from pipelines.exploring.choosing import candidates_for
from pipelines.exploring.front import Front
from pipelines.exploring.points import Point
from pipelines.exploring.workshop import elastic_choice, plain
from pipelines.families import family_of
from pipelines.families.base import Family
from pipelines.techniques.distilling import Lesson, learn
from pipelines.techniques.metrics import Interval, difference_of_right
from pipelines.techniques.scoring import predict_logits
from pipelines.techniques.training import EpochRecord
from pipelines.techniques.vocabulary.choices import cuts_of


def build_chosen(
    student: Bundle, front: Front, data: CleanData, lesson: Lesson, task: Task, budget: Budget, wanted: ChosenPruning
) -> tuple[Bundle, list[EpochRecord], Point]:
    """The cheapest point that holds the budget once recovered, the records of the recoveries, and the point as the front has it.

    The margin is held on validation data in torch, before quantization; the gate holds the exported file.

    Raises BudgetError where no point of the front can hold it, or none of those tried does.
    """
    candidates = candidates_for(front.points, budget, wanted.hope)[: wanted.attempts]
    family = family_of(task)
    cuts = cuts_of(family, student, data.written, elastic_choice(student).vocabularies, task.max_length)
    records: list[EpochRecord] = []
    tried = []
    for at, point in enumerate(candidates, start=1):
        bundle = plain(family, student, cuts[point.vocabulary], point.slice)
        phase = f"recover {at}/{len(candidates)}"
        print(f"{phase}: {point.slice}, {point.quantization}; {point.accuracy_difference:+.2%} to the teacher before")
        records += learn(
            family,
            bundle,
            lesson,
            data.validation,
            wanted.losses,
            wanted.recovery,
            max_length=task.max_length,
            seed=task.seed,
            phase=phase,
            epochs=wanted.recovery.epochs,
        )
        loss = -100 * _difference(family, bundle, data, front.right, task, wanted.bootstrap_samples).low
        tried.append(f"{point.slice}, {point.quantization}: {loss:.2f} points lost at worst")
        if budget.max_accuracy_loss is None or loss <= budget.max_accuracy_loss:
            return bundle, records, point
    raise BudgetError(
        f"none of {len(tried)} points holds max_accuracy_loss {budget.max_accuracy_loss} after recovery: {'; '.join(tried)}; "
        "raise prune.attempts or the margin, or let distill.student hold more"
    )


def _difference(
    family: Family, bundle: Bundle, data: CleanData, right: np.ndarray, task: Task, samples: int
) -> Interval:
    """The recovered model's accuracy on validation, in torch, minus the teacher's."""
    encoded = family.encode(bundle.tokenizer, data.validation.texts, task.max_length)
    predicted = predict_logits(family, bundle.model, bundle.tokenizer, encoded).argmax(-1).numpy()
    ours = predicted == np.array(data.validation.labels)
    return difference_of_right(ours, right, samples, task.seed)
