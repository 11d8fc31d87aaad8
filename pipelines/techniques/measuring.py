"""Throughput and energy of a predictor; latency and memory are measured by slm_registry, which a device can have alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH

#: Texts in, class probabilities [N, C] out; tokenizing included on every side.
Predictor = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Timing:
    """Latency at batch 1 in milliseconds, throughput at batch 32, energy in joules."""

    p50_ms: float
    p95_ms: float
    texts_per_s: float
    energy_j_per_1000: float


def throughput(predict: Predictor, texts: Sequence[str], seconds: float) -> tuple[float, float]:
    """Texts a second at batch 32 and joules a thousand texts (codecarbon's estimate, no network)."""
    batches = [list(texts[at : at + THROUGHPUT_BATCH]) for at in range(0, len(texts), THROUGHPUT_BATCH)]
    predict(batches[0])
    elapsed = 0.0

    def answer() -> int:
        nonlocal elapsed
        start, done, at = time.perf_counter(), 0, 0
        while (elapsed := time.perf_counter() - start) < seconds:
            batch = batches[at % len(batches)]
            predict(batch)
            done, at = done + len(batch), at + 1
        return done

    done, joules = work_and_joules(answer)
    return done / elapsed, joules / done * 1000


def work_and_joules(work: Callable[[], int]) -> tuple[int, float]:
    """Do some work, which answers how many pieces it was; that number, and the joules of all (codecarbon's estimate, no network)."""
    tracker = _energy_tracker()
    tracker.start()
    done = work()
    tracker.stop()
    return done, float(tracker.final_emissions_data.energy_consumed) * 3.6e6


def _energy_tracker() -> Any:
    from codecarbon import OfflineEmissionsTracker

    # Importing codecarbon resets its logger, and its constructor writes before it reads log_level.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    # Energy does not depend on the country; only emissions, which are not reported, would.
    return OfflineEmissionsTracker(
        country_iso_code="USA",
        save_to_file=False,
        log_level="critical",
        tracking_mode="process",
        allow_multiple_runs=True,
    )


def timing(milliseconds: np.ndarray, texts_per_s: float, energy: float) -> Timing:
    """Fold raw measurements."""
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Timing(float(p50), float(p95), texts_per_s, energy)
