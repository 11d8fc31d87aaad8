"""Tiny random bundles of each sequence task, in torch and exported, with a clean set that they can be measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipelines.bundle import CONTROL, LINEAGE, Bundle, write_json
from pipelines.config import Task, TextToTextTask, TokenEvaluate
from pipelines.data.clean import CleanData, Split
from pipelines.families import sequence_family_of
from pipelines.families.loading import save_bundle
from tests.tiny import tiny_config, tiny_tokenizer
from tests.tiny_generators import LINES, tiny_causal, tiny_seq2seq

SHARED: dict[str, Any] = {"seed": 5, "max_length": 32, "threads": 1}
TASKS: dict[str, Task] = {
    "text-generation": Task(type="text-generation", **SHARED),
    "text-to-text": TextToTextTask(type="text-to-text", max_target_length=12, **SHARED),
    "token-classification": Task(type="token-classification", **SHARED),
}
SETTINGS = TokenEvaluate(threads=1, rows=6, prompt_tokens=4, new_tokens=8, latency_rounds=3, bootstrap_samples=200)
TAGS = ["O", "B-THING", "I-THING", "B-DAY"]
TAGGED = (
    ("where is my parcel today", "O O B-THING I-THING B-DAY"),
    ("track the parcel please now", "O B-THING I-THING O B-DAY"),
    ("refund my money", "O O B-THING"),
    ("reset the password", "O B-THING I-THING"),
    ("thanks", "O"),
)
LINEAGE_OF_TINY = {
    "data_sha256": "ab" * 32,
    "teacher": {"source": "fresh tiny"},
    "stages": [{"stage": "teach", "params": {}}],
}


def split_of(task: Task) -> Split:
    """Test rows of a task."""
    if task.type == "token-classification":
        return Split([text for text, _ in TAGGED], targets=[tags for _, tags in TAGGED])
    # The story is longer than an answer may be.
    targets = [line if line.startswith("once upon") else " ".join(line.split()[:2]) for line in LINES]
    return Split(list(LINES), targets=targets if task.type == "text-to-text" else [])


def clean_of(task: Task) -> CleanData:
    """The same rows in every split."""
    split = split_of(task)
    labels = sorted(TAGS) if task.type == "token-classification" else []
    return CleanData(split, split, split, labels, [], "cd" * 32)


def torch_bundle(folder: Path, task: Task, seed: int = 0) -> Path:
    """A bundle as the factory saves it."""
    if task.type == "token-classification":
        save_bundle(Bundle(_tagger(seed), tiny_tokenizer(), {}), folder)
    else:
        maker, kind = (tiny_causal, "gpt2") if task.type == "text-generation" else (tiny_seq2seq, "t5")
        maker(folder, kind, seed)
    write_json(folder / LINEAGE, LINEAGE_OF_TINY | {"task": task.model_dump()})
    return folder


def _tagger(seed: int) -> Any:
    from transformers import BertForTokenClassification

    torch.manual_seed(seed)
    config = tiny_config("bert", len(tiny_tokenizer()))
    config.id2label, config.label2id = dict(enumerate(TAGS)), {tag: at for at, tag in enumerate(TAGS)}
    return BertForTokenClassification(config).eval()


def exported_bundle(folder: Path, source: Path, task: Task) -> Path:
    """A torch bundle's float32 export with what stands beside it."""
    family = sequence_family_of(task)
    bundle = family.load(source)
    folder.mkdir(parents=True)
    family.export(bundle, folder, task.max_length)
    bundle.model.config.save_pretrained(folder)
    bundle.tokenizer.save_pretrained(folder)
    write_json(folder / LINEAGE, bundle.lineage)
    return folder


def side_folders(folder: Path, task: Task) -> None:
    """Write teacher, student with its control inside, and the exported student."""
    torch_bundle(folder / "teacher", task, seed=1)
    student = torch_bundle(folder / "student", task)
    torch_bundle(student / CONTROL, task, seed=2)
    exported_bundle(folder / "exported", student, task)
