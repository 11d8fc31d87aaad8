"""Stage `explore`: what the parts of an elastic student cost and reach on validation data: estimated, searched, measured, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.config import AnySearch, NoTechnique, Task
from pipelines.exploring.front import draw, write_front
from pipelines.exploring.measuring import costs_of, exports_of, losses_of, measure_points
from pipelines.exploring.points import Point
from pipelines.exploring.searching import search, worth_measuring
from pipelines.exploring.targets import Reached, reach
from pipelines.exploring.teacher import measure_teacher
from pipelines.exploring.workshop import Workshop, estimator_of, open_workshop
from pipelines.fanning import Fan, fanned
from pipelines.reproducible import fix_randomness
from pipelines.stages import Output


def explore(
    clean: Path, teacher: Path, student: Path, front: Output, task: Task, explore: NoTechnique | AnySearch
) -> None:
    """Write the front: a table of measured points, the teacher's counts, the picture and the page; empty without a search.

    Raises ModelError where the student is not elastic or an export differs from torch, RecipeError where the target is not the
    machine that is meant, TransientError where it goes away.
    """
    fix_randomness(task)
    front.mkdir(parents=True)
    if isinstance(explore, NoTechnique):
        write_front(front, [], None, {})
        return
    reached = reach(explore.target)
    workshop = open_workshop(student, clean, task, explore)
    reference, counts = measure_teacher(teacher, workshop)
    fix_randomness(task)  # the teacher was timed with the target's threads
    points = fanned(lambda fan: _points(fan, workshop, reached, front, counts), "explore", threads=1)
    write_front(front, points, counts, explore.quantizations)
    draw(front, points, reference, reached, workshop.yardstick)


def _points(fan: Fan, workshop: Workshop, reached: Reached, front: Path, teacher: np.ndarray) -> list[Point]:
    """The parts worth it, measured. Exports and answers are the fan's; times are taken here, in turns, while the fan rests."""
    settings = workshop.settings
    with exports_of(workshop, fan, reached, front) as exports:
        estimator = estimator_of(workshop, costs_of(exports), losses_of(exports), workshop.yardstick.of(teacher))
        names = list(settings.quantizations)
        found = search(workshop.space, names, estimator.of, settings.trials, workshop.task.seed)
        return measure_points(exports, worth_measuring(found, settings.points), teacher)
