"""Stage `explore`: what the parts of an elastic student cost and reach on validation data: estimated, searched, measured, drawn."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import NoTechnique, Search, Task
from pipelines.data.clean import load_clean
from pipelines.exploring.front import draw, write_front
from pipelines.exploring.measuring import costs_of, exports_of, measure_points
from pipelines.exploring.searching import search, worth_measuring
from pipelines.exploring.teacher import measure_teacher
from pipelines.exploring.workshop import estimator_of, open_workshop
from pipelines.reproducible import fix_randomness
from pipelines.stages import Output


def explore(
    clean: Path, teacher: Path, student: Path, front: Output, task: Task, explore: NoTechnique | Search
) -> None:
    """Write the front: a table of measured points, where the teacher was right, the picture and the page; empty without a search.

    Raises ModelError where the student is not elastic or an export differs from torch, TransientError where the target goes away.
    """
    fix_randomness(task)
    front.mkdir(parents=True)
    if isinstance(explore, NoTechnique):
        write_front(front, [], None, {})
        return
    data = load_clean(clean)
    workshop = open_workshop(student, data, task, explore)
    reference, right = measure_teacher(teacher, data, explore)
    fix_randomness(task)  # the teacher was timed with the target's threads
    with exports_of(workshop) as exports:
        estimator = estimator_of(workshop, costs_of(exports))
        found = search(workshop.space, list(explore.quantizations), estimator.of, explore.trials, task.seed)
        points = measure_points(exports, worth_measuring(found, explore.points), right)
    write_front(front, points, right, explore.quantizations)
    draw(front, points, reference, explore.target)
