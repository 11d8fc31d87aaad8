"""model2vec: static embeddings distilled from the sentence encoder, and a classifier trained on them, as its documentation does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.served import Job

#: System -> (dimensions of an embedding, what the trained embeddings are stored in): what its documentation distils, that in int8, and a small one.
SETTINGS = {"model2vec": (256, "float16"), "model2vec-int8": (256, "int8"), "model2vec-small": (64, "int8")}


def build(job: Job) -> dict[str, float]:
    """Distil once, train each setting; seconds of each, the distillation's in all of them."""
    import torch
    from model2vec.distill import distill

    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    # Principal components come in their order, so fewer dimensions are the first of these.
    static = distill(job.body, pca_dims=max(dimensions for dimensions, _ in SETTINGS.values()), device="cpu")
    distilled = time.perf_counter() - start
    return {name: distilled + _train(job, static, name, *setting) for name, setting in SETTINGS.items()}


def _train(job: Job, static: Any, name: str, dimensions: int, stored: str) -> float:
    from model2vec.inference import StaticModelPipeline
    from model2vec.model import quantize_model
    from model2vec.train import StaticModelForClassification

    start = time.perf_counter()
    classifier = StaticModelForClassification.from_static_model(model=quantize_model(static, dimensionality=dimensions))
    texts, labels = job.rows("train")
    own_texts, own_labels = job.rows("validation")
    classifier.fit(texts, labels, X_val=own_texts, y_val=own_labels, device="cpu", random_seed=job.seed)
    pipeline = classifier.to_pipeline()
    small = StaticModelPipeline(quantize_model(pipeline.model, quantize_to=stored), pipeline.head)
    small.save_pretrained(str(Path(job.out) / name))
    return time.perf_counter() - start


def load(folder: Path, job: Job) -> Any:
    """Class probabilities, numpy alone."""
    from model2vec.inference import StaticModelPipeline

    return StaticModelPipeline.from_pretrained(folder).predict_proba
