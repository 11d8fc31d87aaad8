"""What is done with one part of an elastic student before the choice, in this process or in another: exported, asked.

Each answers the same wherever it is done, so each fixes its own seeds and threads. Each travels as the folders that it was opened from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH

from pipelines.bundle import LINEAGE, write_json
from pipelines.data.clean import Split, load_clean
from pipelines.exploring.workshop import Workshop
from pipelines.exporting import save_beside, shrink
from pipelines.predictors import exported_predictor, predict_all
from pipelines.reproducible import fixed
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class Order:
    """A part to export: the folder to write for each quantization."""

    part: Slice
    folders: Mapping[str, Path]


@dataclass(frozen=True)
class Exporting:
    """Exports a part once, and quantizes it as often as ordered. Raises ModelError where the file differs from torch."""

    workshop: Workshop

    def __call__(self, order: Order) -> None:
        with fixed(self.workshop.task, threads=1):
            self._export(order)

    def _export(self, order: Order) -> None:
        shop, family = self.workshop, self.workshop.parts.family
        bundle = shop.parts.plain(order.part)
        whole = next(iter(order.folders.values())).with_suffix(".onnx")
        export_onnx(family, bundle, shop.task.max_length, whole)
        rows = shop.data.train.texts[:PARITY_TEXTS]
        check_parity(whole, family, bundle, rows, shop.task.max_length, shop.settings.parity)
        for name, out in order.folders.items():
            out.mkdir()
            form = shop.settings.quantizations[name]
            shrink(whole, out / "model.onnx", family, bundle, shop.data, shop.task, form)
            save_beside(bundle, out)
            write_json(out / LINEAGE, bundle.lineage)
        whole.unlink()


@dataclass(frozen=True)
class Answering:
    """Where an exported part is right, a row a validation text: [N] bool; of some rows alone where they are named."""

    clean: Path
    threads: int
    rows: tuple[int, ...] | None

    @cached_property
    def _validation(self) -> Split:
        return load_clean(self.clean).validation

    def __call__(self, folder: Path) -> np.ndarray:
        rows = range(len(self._validation.texts)) if self.rows is None else self.rows
        texts = [self._validation.texts[row] for row in rows]
        labels = [self._validation.labels[row] for row in rows]
        predict = exported_predictor(folder, self.threads)
        found: np.ndarray = predict_all(predict, texts, THROUGHPUT_BATCH).argmax(axis=1) == np.array(labels)
        return found
