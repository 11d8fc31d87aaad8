"""The teacher on validation data: where it is right, and what it costs, as the front's reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH, latencies

from pipelines.config import Search
from pipelines.data.clean import CleanData
from pipelines.evaluation import download_bytes
from pipelines.exploring.points import Reference
from pipelines.predictors import predict_all, teacher_predictor


def measure_teacher(teacher: Path, data: CleanData, settings: Search) -> tuple[Reference, np.ndarray]:
    """The teacher's figures in torch on this machine, and whether it is right, a row a validation text."""
    predict = teacher_predictor(teacher, settings.target.threads)
    texts = data.validation.texts
    right = predict_all(predict, texts, THROUGHPUT_BATCH).argmax(axis=1) == np.array(data.validation.labels)
    (times,) = latencies([predict], texts, settings.latency_rounds)
    return Reference(float(right.mean()), float(np.median(times)), download_bytes(teacher)), right
