"""Stage `teach`: the pretrained teacher learns the task, or is taken as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bundle import Bundle
from pipelines.config import Task, Teach
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of
from pipelines.families.base import Family
from pipelines.reproducible import fix_randomness
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques.scoring import score
from pipelines.techniques.training import EpochRecord, Score, compact_embeddings, train


def teach(clean: Path, teacher: Output, curve: Output, task: Task, teach: Teach) -> None:
    """Write the teacher's bundle and its loss curve.

    Raises ModelError where the source is not what the recipe says, or a ready teacher has other labels than the data.
    """
    fix_randomness(task)
    family, data = family_of(task), load_clean(clean)
    source = fetch_pretrained(teach.source, teach.sha256)
    records: list[EpochRecord] = []
    if teach.mode == "ready":
        bundle = family.load_ready(source, data.labels)
    else:
        bundle = family.load_pretrained(source, data.labels)
        records = fine_tune(family, bundle, data, task, teach)
    bundle.tokenizer.model_max_length = task.max_length
    bundle.lineage = {
        "data_sha256": data.digest,
        "teacher": {"source": teach.source, "sha256": teach.sha256},
        "task": task.model_dump(),
        "stages": [{"stage": "teach", "params": teach.model_dump()}],
    }
    family.save(bundle, teacher)
    write_curve(curve, records)


def fine_tune(family: Family, bundle: Bundle, data: CleanData, task: Task, teach: Teach) -> list[EpochRecord]:
    """Train the teacher on true labels, in place; one record an epoch."""
    model, tokenizer = bundle.model, bundle.tokenizer
    encoded = family.encode(tokenizer, data.train.texts, task.max_length)
    checked = family.encode(tokenizer, data.validation.texts, task.max_length)
    labels = torch.tensor(data.train.labels)

    def objective(batch: np.ndarray) -> Tensor:
        outputs = family.forward(model, family.collate(tokenizer, [encoded[index] for index in batch]))
        return torch.nn.functional.cross_entropy(
            outputs.logits.float(), labels[batch], label_smoothing=teach.label_smoothing
        )

    def validate() -> Score:
        return score(family, model, tokenizer, checked, data.validation.labels)

    settings, lengths = teach.training, [len(row) for row in encoded]
    with compact_embeddings(model, [*encoded, *checked]):
        return train(
            model, lengths, objective, validate, settings, seed=task.seed, phase="teach", epochs=settings.epochs
        )
