"""What an evaluation of a sequence model measures, all sides in one run, and how its numbers are put together."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from slm_registry.runtime.timing import latencies, peak_memory

from pipelines.bundle import CONTROL, download_bytes
from pipelines.config import Task, TextToTextTask, TokenEvaluate
from pipelines.data.clean import CleanData
from pipelines.evaluation import write_plots
from pipelines.progress import Progress
from pipelines.sequences.clients import WriterLoader, answering, exported_writer, torch_writer
from pipelines.sequences.main_metric import MAIN
from pipelines.sequences.prompts import asked_of
from pipelines.sequences.quality import Ground, Quality, agreement, quality_of
from pipelines.sequences.sides import SequenceSide, SideLoader, exported_side, torch_side
from pipelines.sequences.sides.predicting import Predictions
from pipelines.techniques.measuring import work_and_joules
from pipelines.techniques.metrics import Interval
from pipelines.techniques.resampling import paired_bootstrap
from pipelines.techniques.writing_speed import Written, speed, writing_runs

#: How each side is loaded: the teacher; the student that learnt alone and the one that learnt from the teacher, both as they were
#: trained; and the exported model.
LOADERS: dict[str, SideLoader] = {
    "teacher": torch_side,
    "control": torch_side,
    "student": torch_side,
    "model": exported_side,
}
#: The sides whose costs are measured, and what answers in a process of its own while its memory is.
TIMED: dict[str, WriterLoader] = {"teacher": torch_writer, "model": exported_writer}


@dataclass(frozen=True)
class MeasuredSide:
    """Everything measured of one side; costs of those in TIMED alone."""

    found: Predictions
    written: list[Written]
    quality: Quality
    costs: dict[str, float]


@dataclass(frozen=True)
class SequenceEvaluation:
    """All sides, what they were judged on, and how they differ."""

    sides: dict[str, MeasuredSide]
    ground: Ground
    difference: Interval
    over_control: Interval | None
    threads: int

    def metrics(self) -> dict[str, Any]:
        """The numbers that go to metrics.json: bytes, milliseconds, tokens a second, shares between 0 and 1, chrF and BLEU up to 100.

        What is not a finite number is null.
        """
        numbers = {name: self._side(name) for name in self.sides} | {"comparison": self._comparison()}
        run = {
            "main_metric": MAIN[self.ground.task.type].key,
            "test_rows": len(self.ground.test.texts),
            "rows_cut": len(self.ground.test.texts) - len(self.ground.whole),
            "asked_rows": len(self.ground.asked.rows),
            "threads": self.threads,
            "machine": platform.machine(),
        }
        return {name: _finite(value) for name, value in (numbers | {"run": run}).items()}

    def _side(self, name: str) -> dict[str, Any]:
        side, teacher = self.sides[name], self.sides["teacher"]
        return side.quality.numbers | (agreement(teacher.found, side.found) if name != "teacher" else {}) | side.costs

    def _comparison(self) -> dict[str, float]:
        teacher, model = self.sides["teacher"].costs, self.sides["model"].costs
        key = MAIN[self.ground.task.type].key
        ratios = {"size_ratio": teacher["bytes"] / model["bytes"]}
        if "tokens_per_s" in model:
            ratios["first_token_ratio"] = teacher["first_token_ms"] / model["first_token_ms"]
            ratios["tokens_per_s_ratio"] = model["tokens_per_s"] / teacher["tokens_per_s"]
        else:
            ratios["latency_ratio"] = teacher["p50_ms"] / model["p50_ms"]
        return (
            ratios
            | _spread(f"{key}_difference", self.difference)
            | _spread(f"control_{key}_difference", self.over_control)
        )


def _spread(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def folders_of(teacher: Path, student: Path, exported: Path) -> dict[str, Path]:
    """The sides that there are: the students as they were trained only where one learnt alone, to be compared with."""
    alone = student / CONTROL
    students = {"control": alone, "student": student} if alone.is_dir() else {}
    return {"teacher": teacher} | students | {"model": exported}


def evaluate_sequences(
    folders: Mapping[str, Path], data: CleanData, task: Task, settings: TokenEvaluate
) -> SequenceEvaluation:
    """Measure every side. Raises ModelError where one does not load, DataError where there is nothing to ask."""
    with Progress("evaluate", 2 * len(folders) + 1 + len(TIMED)) as progress:
        sides = {name: LOADERS[name](folder, settings.threads, task) for name, folder in folders.items()}
        asked = asked_of(task, data.test, settings, sides["teacher"].tokenizer)
        found, written = {}, {}
        for name, side in sides.items():
            found[name] = side.predict(data.test)
            progress.advance()
            written[name] = side.write(asked.prompts, settings.new_tokens)
            progress.advance()
        costs = _speeds({name: sides[name] for name in TIMED}, asked.prompts, task, settings)
        progress.advance()
        for name, load in TIMED.items():
            costs[name] |= _energy(sides[name], asked.prompts, task, settings)
            costs[name] |= _weights(folders[name], load, asked.prompts[:1], task, settings)
            progress.advance()
    ground = Ground(task, data.test, asked, _whole_rows(task, found))
    measured = {
        name: MeasuredSide(
            found[name], written[name], quality_of(ground, found[name], written[name]), costs.get(name, {})
        )
        for name in sides
    }
    difference = _difference(measured, "model", "teacher", task, settings)
    control = _difference(measured, "student", "control", task, settings) if "control" in measured else None
    return SequenceEvaluation(measured, ground, difference, control, settings.threads)


def _whole_rows(task: Task, found: Mapping[str, Predictions]) -> list[int]:
    """Rows whose answer no side had to cut: of the others the bytes that were predicted are not known."""
    lengths = np.array([side.lengths for side in found.values()])
    limit = task.max_target_length if isinstance(task, TextToTextTask) else math.inf
    return [int(row) for row in np.flatnonzero((lengths < limit).all(axis=0))]


def _difference(
    measured: Mapping[str, MeasuredSide], ours: str, theirs: str, task: Task, settings: TokenEvaluate
) -> Interval:
    one, other = (measured[name].quality.counts for name in (ours, theirs))
    return paired_bootstrap(one, other, MAIN[task.type].value, settings.bootstrap_samples, task.seed)


def _speeds(
    sides: Mapping[str, SequenceSide], prompts: list[str], task: Task, settings: TokenEvaluate
) -> dict[str, dict[str, float]]:
    """First token and tokens a second of those that write; latency of those that tag."""
    if not MAIN[task.type].writes:
        tag = [partial(side.write, new_tokens=settings.new_tokens) for side in sides.values()]
        times = latencies(tag, prompts, settings.latency_rounds)
        ends = [np.percentile(row, [50, 95]) for row in times]
        return {
            name: {"p50_ms": float(p50), "p95_ms": float(p95)} for name, (p50, p95) in zip(sides, ends, strict=True)
        }
    runs = writing_runs([side.write for side in sides.values()], prompts, settings.new_tokens, settings.latency_rounds)
    return {name: asdict(speed(timed)) for name, timed in zip(sides, runs, strict=True)}


def _energy(side: SequenceSide, prompts: list[str], task: Task, settings: TokenEvaluate) -> dict[str, float]:
    """Joules a token of what writes, a thousand texts of what tags; one text at a time, as they are timed."""
    texts = [[prompts[at % len(prompts)]] for at in range(settings.latency_rounds)]
    writes = MAIN[task.type].writes

    def answer() -> int:
        answers = [side.write(text, settings.new_tokens) for text in texts]
        return sum(one.tokens for (one,) in answers) if writes else len(answers)

    done, joules = work_and_joules(answer)
    if not done:
        return {}
    return {"energy_j_per_token": joules / done} if writes else {"energy_j_per_1000": joules / done * 1000}


def _weights(
    folder: Path, load: WriterLoader, prompts: list[str], task: Task, settings: TokenEvaluate
) -> dict[str, float]:
    answers = partial(answering, load=load, task=task, new_tokens=settings.new_tokens)
    return {
        "bytes": download_bytes(folder),
        "peak_memory_bytes": peak_memory(answers, folder, settings.threads, prompts),
    }


def plot_sequence_data(result: SequenceEvaluation, folder: Path) -> None:
    """Write confusion.csv (a row a word; of models that write, none) and reliability.csv (a row a bin) for DVC's plots."""
    model = result.sides["model"]
    pairs: list[tuple[str, str]] = []
    if not MAIN[result.ground.task.type].writes:
        names = model.found.names
        pairs = [
            (names[true], names[guess]) for true, guess in zip(model.found.truth, model.found.likeliest, strict=True)
        ]
    write_plots(folder, pairs, model.quality.bins)
