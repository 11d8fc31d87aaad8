"""Parts of an elastic student, exported and measured beside each other: the real figures of the front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH

from pipelines.bundle import LINEAGE, Bundle, write_json
from pipelines.evaluation import download_bytes
from pipelines.exploring.estimating import Measured
from pipelines.exploring.points import Point, best
from pipelines.exploring.searching import Candidate
from pipelines.exploring.targets import Times, measure_until_steady
from pipelines.exploring.workshop import Workshop
from pipelines.exporting import quantization_named, save_beside, shrink
from pipelines.predictors import exported_predictor, predict_all
from pipelines.progress import Progress
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.metrics import difference_of_right
from pipelines.techniques.shapes import Slice

#: A part in a quantization, and the folder where it was exported.
Exported = Mapping[tuple[Slice, str], Path]


@contextmanager
def exported(workshop: Workshop, wanted: Sequence[tuple[Slice, str]], phase: str) -> Iterator[Exported]:
    """Each part in each quantization in a folder of its own, as `quantize` would write it; gone afterwards.

    Raises ModelError where an export differs from torch by more than explore.parity.
    """
    folders: dict[tuple[Slice, str], Path] = {}
    with TemporaryDirectory(prefix="front-") as place, Progress(phase, len(wanted)) as progress:
        for at, part in enumerate(dict.fromkeys(part for part, _ in wanted)):
            bundle = workshop.plain(part)
            whole = Path(place) / f"{at}.onnx"
            export_onnx(workshop.family, bundle, workshop.task.max_length, whole)
            rows = workshop.data.train.texts[:PARITY_TEXTS]
            check_parity(whole, workshop.family, bundle, rows, workshop.task.max_length, workshop.settings.parity)
            for name in (name for other, name in wanted if other == part):
                folders[part, name] = _quantized(workshop, bundle, whole, name, Path(place) / f"{at}-{name}")
                progress.advance()
            whole.unlink()
        yield folders


def _quantized(workshop: Workshop, bundle: Bundle, whole: Path, name: str, out: Path) -> Path:
    out.mkdir()
    wanted = quantization_named(name, workshop.settings)
    shrink(whole, out / "model.onnx", workshop.family, bundle, workshop.data, workshop.task, wanted)
    save_beside(bundle, out)
    write_json(out / LINEAGE, bundle.lineage)
    return out


def costs_of(workshop: Workshop, probes: Sequence[Slice]) -> dict[str, dict[Slice, Measured]]:
    """What each probe costs in each quantization, timed in turns."""
    wanted = [(part, name) for part in probes for name in workshop.settings.quantizations]
    with exported(workshop, wanted, "explore: probes") as folders:
        times = _times(workshop, list(folders.values()))
        costs: dict[str, dict[Slice, Measured]] = {name: {} for name in workshop.settings.quantizations}
        for ((part, name), folder), time in zip(folders.items(), times, strict=True):
            costs[name][part] = Measured(time.p50_ms, download_bytes(folder))
    return costs


def measure_points(workshop: Workshop, candidates: Sequence[Candidate], right: np.ndarray) -> list[Point]:
    """Each candidate, exported: its bytes and times, and its accuracy on validation beside the teacher's right answers [N]."""
    wanted = [(each.part, each.quantization) for each in candidates]
    with exported(workshop, wanted, "explore: export") as folders:
        times = _times(workshop, [folders[pair] for pair in wanted])
        points = []
        with Progress("explore: points", len(wanted)) as progress:
            for candidate, pair, time in zip(candidates, wanted, times, strict=True):
                points.append(_point(workshop, candidate, folders[pair], time, right))
                progress.advance()
    return [replace(point, on_front=stays) for point, stays in zip(points, best(points), strict=True)]


def _times(workshop: Workshop, folders: Sequence[Path]) -> list[Times]:
    settings = workshop.settings
    return measure_until_steady(
        folders,
        workshop.data.validation.texts,
        settings.target,
        settings.latency_rounds,
        share=settings.noise,
        attempts=1 + settings.repeats,
    )


def _point(workshop: Workshop, candidate: Candidate, folder: Path, time: Times, right: np.ndarray) -> Point:
    part, validation = candidate.part, workshop.data.validation
    predict = exported_predictor(folder, workshop.settings.target.threads)
    ours = predict_all(predict, validation.texts, THROUGHPUT_BATCH).argmax(axis=1) == np.array(validation.labels)
    difference = difference_of_right(ours, right, workshop.settings.bootstrap_samples, workshop.task.seed)
    return Point(
        layers=",".join(map(str, part.layers)),
        intermediate_size=part.intermediate_size,
        num_attention_heads=part.num_attention_heads,
        vocabulary=part.vocabulary,
        tokens=len(workshop.cuts[part.vocabulary].kept),
        quantization=candidate.quantization,
        estimated_bytes=candidate.bytes,
        estimated_p50_ms=candidate.p50_ms,
        estimated_accuracy=candidate.accuracy,
        bytes=download_bytes(folder),
        p50_ms=time.p50_ms,
        p50_low=time.p50_low,
        p50_high=time.p50_high,
        texts_per_s=time.texts_per_s,
        peak_memory_bytes=time.peak_memory_bytes,
        accuracy=float(ours.mean()),
        accuracy_difference=difference.value,
        accuracy_difference_low=difference.low,
        accuracy_difference_high=difference.high,
        steady=(time.p50_high - time.p50_low) / 2 <= workshop.settings.noise * time.p50_ms,
        on_front=False,
    )
