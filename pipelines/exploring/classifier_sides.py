"""Text classifiers on a front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from slm_registry.runtime.timing import THROUGHPUT_BATCH

from pipelines.bundle import LINEAGE, write_json
from pipelines.config import AnySearch, Task
from pipelines.data.clean import Split
from pipelines.exploring.parts import Parts
from pipelines.exploring.sides import Judge
from pipelines.exploring.targets import Questions
from pipelines.exploring.yardsticks import right_counts
from pipelines.exporting import save_beside, shrink
from pipelines.families import family_of
from pipelines.predictors import exported_predictor, predict_all, teacher_predictor
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.measuring import Predictor
from pipelines.techniques.shapes import Slice


@dataclass(frozen=True)
class ClassifierSides:
    """See Sides in exploring/sides.py."""

    task: Task

    def questions(self, parts: Parts, rows: Sequence[int], settings: AnySearch) -> Questions:
        return Questions([parts.data.validation.texts[row] for row in rows], None)

    def export(self, parts: Parts, part: Slice, folders: Mapping[str, Path], settings: AnySearch) -> None:
        bundle, task, family = parts.plain(part), self.task, family_of(self.task)
        whole = next(iter(folders.values())).with_suffix(".onnx")
        export_onnx(family, bundle, task.max_length, whole)
        rows = parts.data.train.texts[:PARITY_TEXTS]
        check_parity(whole, family, bundle, rows, task.max_length, settings.parity)
        for name, out in folders.items():
            out.mkdir()
            shrink(whole, out / "model.onnx", family, bundle, parts.data, task, settings.quantizations[name])
            save_beside(bundle, out)
            write_json(out / LINEAGE, bundle.lineage)
        whole.unlink()

    def exported(self, folder: Path, threads: int) -> Judge:
        return _judge(exported_predictor(folder, threads))

    def teacher(self, folder: Path, threads: int) -> tuple[Judge, Callable[[Questions], Callable[[list[str]], Any]]]:
        predict = teacher_predictor(folder, threads)
        return _judge(predict), lambda _: predict


def _judge(predict: Predictor) -> Judge:
    def judge(split: Split) -> np.ndarray:
        told = predict_all(predict, split.texts, THROUGHPUT_BATCH).argmax(axis=1)
        return right_counts(told == np.array(split.labels))

    return judge
