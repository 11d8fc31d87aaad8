"""What an evaluation measures and how its numbers are put together; the stage and the board both use it."""

from __future__ import annotations

import csv
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH, latencies, peak_memory

from pipelines.bundle import download_bytes
from pipelines.config import Evaluate
from pipelines.data.clean import CleanData
from pipelines.predictors import predict_all
from pipelines.progress import Progress
from pipelines.techniques import metrics
from pipelines.techniques.measuring import Predictor, Timing, throughput, timing


@dataclass(frozen=True)
class Side:
    """One of the models compared: its folder and how it is loaded (folder, threads) -> predictor."""

    name: str
    folder: Path
    load: Callable[[Path, int], Predictor]


@dataclass(frozen=True)
class Measured:
    """Everything measured of one side."""

    probabilities: np.ndarray
    milliseconds: np.ndarray
    timing: Timing
    peak_memory_bytes: int
    bytes: int


@dataclass(frozen=True)
class Quality:
    """Quality of one side on test data."""

    accuracy: metrics.Interval
    macro_f1: float
    bins: list[metrics.ReliabilityBin]
    classes: list[metrics.ClassRow]


@dataclass(frozen=True)
class Evaluation:
    """Teacher and model, measured in one run, and their difference."""

    measured: dict[str, Measured]
    quality: dict[str, Quality]
    difference: metrics.Interval
    truth: np.ndarray
    threads: int

    def metrics(self) -> dict[str, Any]:
        """The numbers that go to metrics.json: bytes, milliseconds, texts a second, shares between 0 and 1."""
        teacher, model = self.measured["teacher"], self.measured["model"]
        return {side: self._side(side) for side in ("teacher", "model")} | {
            "comparison": {
                "accuracy_difference": self.difference.value,
                "accuracy_difference_low": self.difference.low,
                "accuracy_difference_high": self.difference.high,
                "size_ratio": teacher.bytes / model.bytes,
                "latency_ratio": teacher.timing.p50_ms / model.timing.p50_ms,
                "throughput_ratio": model.timing.texts_per_s / teacher.timing.texts_per_s,
            },
            "run": {"test_rows": len(self.truth), "threads": self.threads, "machine": platform.machine()},
        }

    def _side(self, side: str) -> dict[str, Any]:
        measured, quality = self.measured[side], self.quality[side]
        return {
            "accuracy": quality.accuracy.value,
            "accuracy_low": quality.accuracy.low,
            "accuracy_high": quality.accuracy.high,
            "macro_f1": quality.macro_f1,
            "ece": metrics.calibration_error(quality.bins),
            "bytes": measured.bytes,
            "peak_memory_bytes": measured.peak_memory_bytes,
        } | asdict(measured.timing)


def measure(sides: Sequence[Side], data: CleanData, settings: Evaluate) -> dict[str, Measured]:
    """Time every side in turns, then its quality, memory and energy."""
    with Progress("evaluate", 2 + 2 * len(sides)) as progress:
        predictors = [side.load(side.folder, settings.threads) for side in sides]
        probabilities = [predict_all(predict, data.test.texts, THROUGHPUT_BATCH) for predict in predictors]
        progress.advance()
        milliseconds = latencies(predictors, data.test.texts, settings.latency_rounds)
        progress.advance()
        measured = {}
        for at, side in enumerate(sides):
            speed, energy = throughput(predictors[at], data.test.texts, settings.throughput_seconds)
            progress.advance()
            peak = peak_memory(side.load, side.folder, settings.threads, data.test.texts[:THROUGHPUT_BATCH])
            progress.advance()
            times = timing(milliseconds[at], speed, energy)
            measured[side.name] = Measured(
                probabilities[at], milliseconds[at], times, peak, download_bytes(side.folder)
            )
    return measured


def compare(measured: dict[str, Measured], data: CleanData, settings: Evaluate, seed: int) -> Evaluation:
    """Quality of both sides and the paired difference."""
    truth = np.array(data.test.labels, dtype=np.int64)
    quality = {}
    for name, side in measured.items():
        predicted = side.probabilities.argmax(axis=1)
        quality[name] = Quality(
            accuracy=metrics.accuracy(truth, predicted),
            macro_f1=metrics.macro_f1(truth, predicted, len(data.labels)),
            bins=metrics.reliability(truth, side.probabilities, settings.calibration_bins),
            classes=metrics.per_class(truth, predicted, data.labels),
        )
    predictions = [measured[name].probabilities.argmax(axis=1) for name in ("model", "teacher")]
    difference = metrics.paired_difference(truth, predictions[0], predictions[1], settings.bootstrap_samples, seed)
    return Evaluation(measured, quality, difference, truth, settings.threads)


def plot_data(result: Evaluation, data: CleanData, folder: Path) -> None:
    """Write DVC's plot data: a pair of labels a test text, and the model's reliability."""
    predicted = result.measured["model"].probabilities.argmax(axis=1)
    pairs = [(data.labels[true], data.labels[guess]) for true, guess in zip(result.truth, predicted, strict=True)]
    write_plots(folder, pairs, result.quality["model"].bins)


def write_plots(folder: Path, pairs: Sequence[tuple[str, str]], bins: Sequence[metrics.ReliabilityBin]) -> None:
    """Write confusion.csv (a row an actual and a predicted label) and reliability.csv (a row a bin) for DVC's plots."""
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        writer.writerows(pairs)
    with (folder / "reliability.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["confidence", "accuracy", "rows"])
        writer.writerows([round(item.confidence, 6), round(item.accuracy, 6), item.rows] for item in bins)
