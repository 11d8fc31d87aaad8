"""Stage `label`: the teacher runs once over every training text; everything after reads what it said."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle import digest_of
from pipelines.config import Label, Task
from pipelines.data.clean import load_clean
from pipelines.families import family_of
from pipelines.reproducible import fix_randomness
from pipelines.signals import write_signals
from pipelines.stages import Output
from pipelines.techniques.augmenting import synthetic_texts


def label(clean: Path, teacher: Path, signals: Output, task: Task, label: Label) -> None:
    """Write the teacher's signals for every distinct training, unlabelled and synthetic text.

    Raises ModelError where the recipe asks for a layer that the teacher does not have.
    """
    fix_randomness(task)
    family, data = family_of(task), load_clean(clean)
    bundle = family.load(teacher)
    given = list(dict.fromkeys([*data.train.texts, *data.unlabelled]))
    synthetic = synthetic_texts(given, label.synthetic_copies, task.seed)
    texts = [*given, *synthetic]
    encoded = family.encode(bundle.tokenizer, texts, task.max_length)
    facts = {
        "teacher_sha256": digest_of(teacher),
        "data_sha256": data.digest,
        "texts": len(texts),
        "labels": data.labels,
    }
    write_signals(signals, family, bundle, texts, encoded, synthetic, label, facts)
