"""The two sides of an evaluation: the teacher in torch, eager, and the exported bundle through the client that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import read_json
from pipelines.config import Task
from pipelines.techniques.measuring import Predictor


def teacher_predictor(folder: Path, threads: int) -> Predictor:
    """Class probabilities of a torch bundle, eager mode, one padded batch a call."""
    import torch

    from pipelines.families import family_of

    torch.set_num_threads(threads)
    task = Task(**read_json(folder / "lineage.json")["task"])
    family = family_of(task)
    bundle = family.load(folder)

    def predict(texts: list[str]) -> np.ndarray:
        rows = family.encode(bundle.tokenizer, texts, task.max_length)
        with torch.inference_mode():
            logits = family.forward(bundle.model, family.collate(bundle.tokenizer, rows)).logits
        probabilities: np.ndarray = logits.softmax(-1).numpy()
        return probabilities

    return predict


def exported_predictor(folder: Path, threads: int) -> Predictor:
    """Class probabilities of an exported bundle through slm_registry, as a downstream team calls it."""
    from slm_registry.runtime.text_classification import TextClassifier

    classifier: Any = TextClassifier.from_folder(folder, threads=threads)
    probabilities: Predictor = classifier.predict_proba
    return probabilities


def predict_all(predict: Predictor, texts: list[str], batch_size: int) -> np.ndarray:
    """Probabilities [N, C] of many texts in their order, batched by length."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = [
        predict([texts[index] for index in order[at : at + batch_size]]) for at in range(0, len(order), batch_size)
    ]
    answer = np.concatenate(parts)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return answer[back].astype(np.float64)
