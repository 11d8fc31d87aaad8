"""The teacher on validation data: its counts, and what it costs, as the front's reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from slm_registry.runtime.timing import latencies

from pipelines.bundle import download_bytes
from pipelines.exploring.points import Reference
from pipelines.exploring.sides import sides_of
from pipelines.exploring.workshop import Workshop


def measure_teacher(teacher: Path, workshop: Workshop) -> tuple[Reference, np.ndarray]:
    """The teacher's figures in torch on this machine, timed on what its parts are timed on, and its counts [N, K]."""
    settings, questions = workshop.settings, workshop.questions
    judge, timed = sides_of(workshop.task).teacher(teacher, settings.target.threads)
    counts = judge(workshop.parts.data.validation)
    (times,) = latencies([timed(questions)], questions.texts, settings.latency_rounds)
    return Reference(workshop.yardstick.of(counts), float(np.median(times)), download_bytes(teacher)), counts
