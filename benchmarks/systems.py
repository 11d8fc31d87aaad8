"""What stands on the board: each system, built from the same clean set, as a predictor with its size and build time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.chain import SHARED, begin_beside, recipe_for, run
from pipelines.bundle import download_bytes, write_json
from pipelines.config import Task
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of
from pipelines.predictors import exported_predictor, predict_all, teacher_predictor
from pipelines.techniques.calibrating import fit_biases
from pipelines.techniques.exporting import export_onnx
from pipelines.techniques.measuring import Predictor
from pipelines.techniques.quantizing import dynamic_int8

STAGES = ("validate", "teach", "label", "distill", "prune", "quantize")
#: Further shapes of the same teacher, as kinds of recipes: one without layers, and the whole teacher in fewer words.
SHAPES = ("static", "near")
THREADS = 1
BATCH = 32
#: The least probability that has a logarithm worth reading.
LEAST = 1e-12


@dataclass(frozen=True)
class System:
    """One line of the board."""

    name: str
    predict: Predictor
    bytes: int
    build_s: float


def build_systems(name: str, source: Path, work: Path) -> tuple[CleanData, list[System], dict[str, float]]:
    """Build every system of the board for one data folder; the last is what a fixed shape took by stage, in seconds."""
    seconds = run(name, recipe_for(name, source), work, STAGES)
    made = work / "build" / name
    data = load_clean(made / "data")
    teach = seconds["teach"]
    factory = System(
        "factory",
        exported_predictor(made / "exported", THREADS),
        download_bytes(made / "exported"),
        sum(seconds.values()),
    )
    teacher = System(
        "teacher-torch", teacher_predictor(made / "teacher", THREADS), download_bytes(made / "teacher"), teach
    )
    others = [further_shape(name, kind, source, work, seconds) for kind in SHAPES]
    theirs = [tfidf(data), teacher, with_biases(teacher, data), *by_hand(made / "teacher", work / "by-hand", teach)]
    return data, [*theirs, factory, *others], seconds


def further_shape(name: str, kind: str, source: Path, work: Path, fixed: Mapping[str, float]) -> System:
    """Another fixed shape from the teacher and signals in `work`, which took `fixed` seconds by stage; they count for it too."""
    made = begin_beside(name, work, work / kind)
    seconds = run(name, recipe_for(name, source, f"-{kind}"), work / kind, ("distill", "prune", "quantize"))
    built = sum(fixed[stage] for stage in SHARED) + sum(seconds.values())
    exported = made / "exported"
    return System(f"factory-{kind}", exported_predictor(exported, THREADS), download_bytes(exported), built)


def tfidf(data: CleanData) -> System:
    """TF-IDF of words and word pairs with logistic regression; its size is its tables as float32 and JSON."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=30, max_iter=1000).fit(vectorizer.fit_transform(data.train.texts), data.train.labels)
    seconds = time.perf_counter() - start
    tables = (
        model.coef_.astype(np.float32).nbytes
        + model.intercept_.astype(np.float32).nbytes
        + vectorizer.idf_.astype(np.float32).nbytes
    )
    words = len(json.dumps({word: int(at) for word, at in vectorizer.vocabulary_.items()}).encode())

    def predict(texts: list[str]) -> np.ndarray:
        probabilities: np.ndarray = model.predict_proba(vectorizer.transform(texts))
        return probabilities

    return System("tfidf", predict, tables + words, seconds)


def with_biases(teacher: System, data: CleanData) -> System:
    """The teacher with what `quantize` fits to a student on validation: a control for how much of a student's accuracy is of that."""
    start = time.perf_counter()

    def logits(texts: list[str]) -> Tensor:
        return torch.tensor(predict_all(teacher.predict, texts, BATCH)).clamp(min=LEAST).log()

    found = fit_biases(logits(data.validation.texts), torch.tensor(data.validation.labels))
    seconds = teacher.build_s + time.perf_counter() - start

    def predict(texts: list[str]) -> np.ndarray:
        answers: np.ndarray = found.of(logits(texts)).softmax(-1).numpy()
        return answers

    return System("teacher-biases", predict, teacher.bytes, seconds)


def by_hand(teacher: Path, work: Path, teach_s: float) -> list[System]:
    """What a user does without a factory: export the teacher, and quantize it dynamically with default settings."""
    task = Task(**json.loads((teacher / "lineage.json").read_text(encoding="utf-8"))["task"])
    family = family_of(task)
    bundle = family.load(teacher)
    start = time.perf_counter()
    whole, small = work / "teacher-ort", work / "teacher-int8"
    shutil.rmtree(work, ignore_errors=True)
    for folder in (whole, small):
        folder.mkdir(parents=True)
        bundle.model.config.save_pretrained(folder)
        bundle.tokenizer.save_pretrained(folder)
        write_json(folder / "lineage.json", bundle.lineage)
    export_onnx(family, bundle, task.max_length, whole / "model.onnx")
    exported = time.perf_counter()
    dynamic_int8(whole / "model.onnx", small / "model.onnx", per_channel=False, embeddings=None)
    times = {"teacher-ort": exported - start, "teacher-int8": time.perf_counter() - start}
    return [
        System(folder.name, exported_predictor(folder, THREADS), download_bytes(folder), teach_s + times[folder.name])
        for folder in (whole, small)
    ]
