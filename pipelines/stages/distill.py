"""Stage `distill`: a smaller student learns from the stored signals."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle import extend_lineage
from pipelines.config import Distill, StudentPretrained, Task
from pipelines.curves import write_curve
from pipelines.data.clean import load_clean
from pipelines.families import family_of
from pipelines.reproducible import fix_randomness
from pipelines.signals import read_signals
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques.distilling import learn, lesson_from


def distill(
    clean: Path, signals: Path, teacher: Path, student: Output, curve: Output, task: Task, distill: Distill
) -> None:
    """Write the student's bundle and its loss curve.

    Raises ModelError where student and signals do not fit, DataError where the signals are damaged.
    """
    fix_randomness(task)
    family, data = family_of(task), load_clean(clean)
    lesson = lesson_from(data, read_signals(signals))
    choice, taught = distill.student, family.load(teacher)
    if isinstance(choice, StudentPretrained):
        bundle = family.adopt(taught, choice, fetch_pretrained(choice.source, choice.sha256))
    else:
        bundle = family.student(taught, choice)
    records = learn(
        family,
        bundle,
        lesson,
        data.validation,
        distill.losses,
        distill.training,
        max_length=task.max_length,
        seed=task.seed,
        phase="distill",
        epochs=distill.training.epochs,
    )
    bundle.lineage = extend_lineage(bundle.lineage, "distill", {"params": distill.model_dump()})
    family.save(bundle, student)
    write_curve(curve, records)
