"""Parts of an elastic student, exported and measured beside each other: the real figures of the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH

from pipelines.bundle import LINEAGE, write_json
from pipelines.evaluation import download_bytes
from pipelines.exploring.estimating import Measured
from pipelines.exploring.points import Point, best
from pipelines.exploring.searching import Candidate
from pipelines.exploring.targets import Times, measure_until_steady, steady
from pipelines.exploring.workshop import Workshop
from pipelines.exporting import save_beside, shrink
from pipelines.predictors import exported_predictor, predict_all
from pipelines.progress import Progress
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.metrics import difference_of_right
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Exports:
    """Parts as `quantize` would write them, each exported once and each in a folder of its own under `place`."""

    workshop: Workshop
    place: Path
    folders: dict[tuple[Slice, str], Path] = field(default_factory=dict)

    def of(self, wanted: Sequence[tuple[Slice, str]], phase: str) -> list[Path]:
        """The folder of each part in each quantization. Raises ModelError where one differs from torch by more than explore.parity."""
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in self.folders]
        with Progress(phase, len(missing)) as progress:
            for part in dict.fromkeys(part for part, _ in missing):
                names = [name for other, name in missing if other == part]
                self._export(part, names)
                progress.advance(len(names))
        return [self.folders[pair] for pair in wanted]

    def _export(self, part: Slice, names: Sequence[str]) -> None:
        shop, number = self.workshop, len(self.folders)
        bundle = shop.plain(part)
        whole = self.place / f"{number}.onnx"
        export_onnx(shop.family, bundle, shop.task.max_length, whole)
        rows = shop.data.train.texts[:PARITY_TEXTS]
        check_parity(whole, shop.family, bundle, rows, shop.task.max_length, shop.settings.parity)
        for name in names:
            out = self.place / f"{number}-{name}"
            out.mkdir()
            form = shop.settings.quantizations[name]
            shrink(whole, out / "model.onnx", shop.family, bundle, shop.data, shop.task, form)
            save_beside(bundle, out)
            write_json(out / LINEAGE, bundle.lineage)
            self.folders[part, name] = out
        whole.unlink()


@contextmanager
def exports_of(workshop: Workshop) -> Iterator[Exports]:
    """A place for exported parts, gone afterwards."""
    with TemporaryDirectory(prefix="front-") as place:
        yield Exports(workshop, Path(place))


def costs_of(exports: Exports) -> dict[str, dict[Slice, Measured]]:
    """What each probe costs in each quantization, timed in turns."""
    shop = exports.workshop
    wanted = [(part, name) for part in shop.probes for name in shop.settings.quantizations]
    folders = exports.of(wanted, "explore: probes")
    costs: dict[str, dict[Slice, Measured]] = {name: {} for name in shop.settings.quantizations}
    for (part, name), folder, time in zip(wanted, folders, _times(shop, folders), strict=True):
        costs[name][part] = Measured(time.p50_ms, download_bytes(folder))
    return costs


def measure_points(exports: Exports, candidates: Sequence[Candidate], right: np.ndarray) -> list[Point]:
    """Each candidate, exported: its bytes and times, and its accuracy on validation beside the teacher's right answers [N]."""
    folders = exports.of([(each.part, each.quantization) for each in candidates], "explore: export")
    times = _times(exports.workshop, folders)
    points = []
    with Progress("explore: points", len(folders)) as progress:
        for candidate, folder, time in zip(candidates, folders, times, strict=True):
            points.append(_point(exports.workshop, candidate, folder, time, right))
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
        steady=steady([time], workshop.settings.noise)[0],
        on_front=False,
    )
