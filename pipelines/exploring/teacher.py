"""The teacher on validation data: where it is right, and what it costs, as the front's reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH, latencies

from pipelines.bundle import download_bytes
from pipelines.config import Search
from pipelines.data.clean import CleanData
from pipelines.exploring.points import Reference
from pipelines.predictors import predict_all, teacher_predictor


def measure_teacher(
    teacher: Path, data: CleanData, timed: Sequence[str], settings: Search
) -> tuple[Reference, np.ndarray]:
    """The teacher's figures in torch on this machine, timed on the texts that its parts are timed on, and whether it is right, a row a validation text."""
    predict = teacher_predictor(teacher, settings.target.threads)
    texts = data.validation.texts
    right = predict_all(predict, texts, THROUGHPUT_BATCH).argmax(axis=1) == np.array(data.validation.labels)
    (times,) = latencies([predict], timed, settings.latency_rounds)
    return Reference(float(right.mean()), float(np.median(times)), download_bytes(teacher)), right
