"""Time, memory and energy of two predictors, side by side in one run."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Texts in, class probabilities [N, C] out; tokenizing included on every side.
Predictor = Callable[[list[str]], np.ndarray]

#: (folder, threads) -> what answers texts; a spawned process must be able to import it.
Loader = Callable[[Path, int], Callable[[list[str]], object]]

WARM_UP = 20
#: Texts in a row that one predictor answers before the next has its turn: a service runs one model, and so has it in its
#: caches; turns text by text would time the refilling of the caches, which weighs most on the smallest model.
TURN = 25
THROUGHPUT_BATCH = 32


@dataclass(frozen=True)
class Timing:
    """Latency at batch 1 in milliseconds, throughput at batch 32, energy in joules."""

    p50_ms: float
    p95_ms: float
    texts_per_s: float
    energy_j_per_1000: float


def latencies(
    predictors: Sequence[Callable[[list[str]], object]], texts: Sequence[str], rounds: int
) -> list[np.ndarray]:
    """Milliseconds of single texts, an array a predictor; they take turns of TURN texts, so a slow moment hits all of them."""
    for predict in predictors:
        for at in range(WARM_UP):
            predict([texts[at % len(texts)]])
    times = np.empty((len(predictors), rounds))
    for first in range(0, rounds, TURN):
        for which, predict in enumerate(predictors):
            for at in range(first, min(first + TURN, rounds)):
                start = time.perf_counter()
                predict([texts[at % len(texts)]])
                times[which, at] = time.perf_counter() - start
    return [row * 1000 for row in times]


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


def peak_memory(load: Loader, folder: Path, threads: int, texts: list[str]) -> int:
    """Peak resident bytes of a fresh process that loads a model and answers some texts: what a user's process costs."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_in_child, (load, folder, threads, texts))


def _peak_in_child(load: Loader, folder: Path, threads: int, texts: list[str]) -> int:
    load(folder, threads)(texts)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory too: Linux carries it over exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
