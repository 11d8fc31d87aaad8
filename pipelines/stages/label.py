"""Stage `label`: the teacher runs once over every training text; everything after reads what it said."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

from pipelines.bundle import digest_of
from pipelines.config import Label, Task, TokenLabel
from pipelines.data.clean import load_clean
from pipelines.families import family_of, sequence_family_of
from pipelines.fanning import fanned
from pipelines.reproducible import fix_randomness
from pipelines.sequences.continuing import WRITTEN, written_texts
from pipelines.sequences.labelling import write_labels
from pipelines.signals import Hearing, write_signals
from pipelines.stages import Resumable
from pipelines.techniques.augmenting import synthetic_texts


def label(clean: Path, teacher: Path, signals: Resumable, task: Task, label: Label | TokenLabel) -> None:
    """Write the teacher's signals for every training text, and those that it writes or that are made of them.

    Of a run that was killed, finished shards (sequences) are kept. Raises ModelError where the recipe asks for a layer that
    the teacher does not have.
    """
    fix_randomness(task)
    if isinstance(label, TokenLabel):
        _label_sequences(clean, teacher, signals, task, label)
    else:
        _label_texts(clean, teacher, signals, task, label)


def _label_sequences(clean: Path, teacher: Path, signals: Path, task: Task, label: TokenLabel) -> None:
    family, data = sequence_family_of(task), load_clean(clean)
    bundle = family.load(teacher)
    examples = family.examples(bundle, data.train, task.max_length)
    facts = {"teacher_sha256": digest_of(teacher), "data_sha256": data.digest, "label": label.model_dump()}
    taught = (teacher, family, bundle)
    fanned(lambda fan: write_labels(signals, taught, examples, label, facts, task, fan), "label", task.threads)


def _label_texts(clean: Path, teacher: Path, signals: Path, task: Task, label: Label) -> None:
    family, data = family_of(task), load_clean(clean)
    bundle = family.load(teacher)
    given = list(dict.fromkeys([*data.train.texts, *data.unlabelled]))
    levers = synthetic_texts(given, label.levers, task.seed)
    if label.levers.written is not None:
        seen = [*given, *chain.from_iterable(levers.values())]
        levers[WRITTEN] = written_texts(given, seen, label.levers.written, task.seed)
    texts = [*given, *chain.from_iterable(levers.values())]
    encoded = family.encode(bundle.tokenizer, texts, task.max_length)
    facts = {
        "teacher_sha256": digest_of(teacher),
        "data_sha256": data.digest,
        "texts": len(texts),
        "labels": data.labels,
    }
    shutil.rmtree(signals, ignore_errors=True)
    hearing = Hearing(teacher, family, bundle, task, label)
    fanned(lambda fan: write_signals(signals, hearing, texts, encoded, levers, facts, fan), "label", task.threads)
