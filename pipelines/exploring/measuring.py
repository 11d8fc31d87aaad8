"""Parts of an elastic student, exported and measured beside each other: the real figures of the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipelines.bundle import download_bytes
from pipelines.exploring.estimating import Measured
from pipelines.exploring.points import Point, best
from pipelines.exploring.searching import Candidate
from pipelines.exploring.targets import Reached, Times, measure_until_steady, steady
from pipelines.exploring.units import Answering, Exporting, Order
from pipelines.exploring.workshop import Workshop
from pipelines.fanning import Fan
from pipelines.progress import Progress
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Exports:
    """Parts as `quantize` would write them, each exported once and each in a folder of its own under `place`."""

    workshop: Workshop
    place: Path
    fan: Fan
    reached: Reached
    folders: dict[tuple[Slice, str], Path] = field(default_factory=dict)

    def of(self, wanted: Sequence[tuple[Slice, str]], phase: str) -> list[Path]:
        """The folder of each part in each quantization. Raises ModelError where one differs from torch by more than explore.parity."""
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in self.folders]
        parts = {part: [name for other, name in missing if other == part] for part, _ in missing}
        orders = [Order(part, self._named(part, names)) for part, names in parts.items()]
        with Progress(phase, len(missing)) as progress:
            for order, _ in zip(orders, self.fan.map(Exporting(self.workshop), orders), strict=True):
                self.folders.update({(order.part, name): folder for name, folder in order.folders.items()})
                progress.advance(len(order.folders))
        return [self.folders[pair] for pair in wanted]

    def _named(self, part: Slice, names: Sequence[str]) -> dict[str, Path]:
        """The folders to be. A part that comes a second time does so for other quantizations."""
        number = self.workshop.space.index(part)
        return {name: self.place / f"{number}-{name}" for name in names}


@contextmanager
def exports_of(workshop: Workshop, fan: Fan, reached: Reached, front: Path) -> Iterator[Exports]:
    """A place for exported parts beside the front, where every machine of a fan finds it; gone afterwards. They are timed on what was reached."""
    with TemporaryDirectory(prefix="exports-", dir=front.absolute()) as place:
        yield Exports(workshop, Path(place), fan, reached)


def costs_of(exports: Exports) -> dict[str, dict[Slice, Measured]]:
    """What each probe costs in each quantization, timed in turns."""
    shop = exports.workshop
    wanted = [(part, name) for part in shop.probes for name in shop.settings.quantizations]
    folders = exports.of(wanted, "explore: probes")
    costs: dict[str, dict[Slice, Measured]] = {name: {} for name in shop.settings.quantizations}
    for (part, name), folder, time in zip(wanted, folders, _times(exports, folders), strict=True):
        costs[name][part] = Measured(time.p50_ms, download_bytes(folder))
    return costs


def losses_of(exports: Exports) -> dict[str, float]:
    """What each quantization takes from a part's number, below 0 where it adds some: the mean over the probes, on the timed texts."""
    shop = exports.workshop
    wanted = [(part, name) for part in shop.probes for name in shop.settings.quantizations]
    folders = exports.of(wanted, "explore: probes")
    answering = _answering(shop, tuple(shop.timed))
    whole = {part: shop.yardstick.of(shop.parts.judged(part, shop.timed)) for part in shop.probes}
    losses: dict[str, list[float]] = {name: [] for name in shop.settings.quantizations}
    for (part, name), ours in zip(wanted, exports.fan.map(answering, folders), strict=True):
        losses[name].append(shop.yardstick.loss(shop.yardstick.of(ours), whole[part]))
    return {name: sum(each) / len(each) for name, each in losses.items()}


def _answering(shop: Workshop, rows: tuple[int, ...] | None) -> Answering:
    return Answering(shop.folders[1], shop.task, shop.settings.target.threads, rows)


def measure_points(exports: Exports, candidates: Sequence[Candidate], teacher: np.ndarray) -> list[Point]:
    """Each candidate, exported: its bytes and times, and its counts on validation beside the teacher's [N, K]."""
    folders = exports.of([(each.part, each.quantization) for each in candidates], "explore: export")
    times = _times(exports, folders)
    answers = exports.fan.map(_answering(exports.workshop, None), folders)
    points = []
    with Progress("explore: points", len(folders)) as progress:
        for candidate, folder, time, ours in zip(candidates, folders, times, answers, strict=True):
            points.append(_point(exports.workshop, candidate, folder, time, ours, teacher))
            progress.advance()
    return [replace(point, on_front=stays) for point, stays in zip(points, best(points), strict=True)]


def _times(exports: Exports, folders: Sequence[Path]) -> list[Times]:
    settings = exports.workshop.settings
    return measure_until_steady(
        folders,
        exports.workshop.questions,
        exports.reached,
        settings.latency_rounds,
        share=settings.noise,
        attempts=1 + settings.repeats,
    )


def _point(
    workshop: Workshop, candidate: Candidate, folder: Path, time: Times, ours: np.ndarray, teacher: np.ndarray
) -> Point:
    part, yardstick = candidate.part, workshop.yardstick
    lost = yardstick.lost(ours, teacher, workshop.settings.bootstrap_samples, workshop.task.seed)
    return Point(
        layers=",".join(map(str, part.layers)),
        intermediate_size=part.intermediate_size,
        num_attention_heads=part.num_attention_heads,
        vocabulary=part.vocabulary,
        tokens=workshop.parts.tokens(part),
        quantization=candidate.quantization,
        estimated_bytes=candidate.bytes,
        estimated_p50_ms=candidate.p50_ms,
        estimated_loss=candidate.loss,
        bytes=download_bytes(folder),
        p50_ms=time.p50_ms,
        p50_low=time.p50_low,
        p50_high=time.p50_high,
        per_s=time.per_s,
        peak_memory_bytes=time.peak_memory_bytes,
        quality=yardstick.of(ours),
        loss=lost.value,
        loss_low=lost.low,
        loss_high=lost.high,
        steady=steady([time], workshop.settings.noise)[0],
        on_front=False,
    )
