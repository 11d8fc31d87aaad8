"""`make bench-training`: texts a second of training a classifier, the same student on the same texts, two ways.

- the factory: `learn` on the teacher's stored logits and the true labels; length buckets, fused AdamW, only the embedding rows in use;
- transformers' Trainer on cross-entropy with the true labels, without a teacher, batches padded to their longest text.

Both in float32 and in bfloat16. The sides take turns, each with a fresh copy of the student, and a round is one pass over the texts.
"""

from __future__ import annotations

import argparse
import copy
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pages import load, machine, write_section
from benchmarks.rounds import alternate
from pipelines.environment import ROOT, disable_telemetry, quiet_libraries
from pipelines.techniques.course import Unkept

BATCH, LEARNING_RATE, WARM_UP, MAX_LENGTH = 32, 5e-4, 0.1, 64
LAYERS = [1, 3, 5]


@dataclass(frozen=True)
class Setting:
    """A student, and the texts with the teacher's stored signals that it learns from."""

    family: Any
    student: Any
    lesson: Any
    encoded: list[list[int]]
    threads: int


#: Trains a fresh copy of the student on every text once; the seconds of the training call.
Side = Callable[[Setting], float]


def setting(rows: int, threads: int, folder: Path) -> Setting:
    """MiniLM with a fresh head as teacher, three of its layers as student, the first rows of the built-in corpus."""
    import torch

    from pipelines.config import Label, Levers, StudentLayers, Task, load_recipe
    from pipelines.data.clean import CleanData, Split
    from pipelines.families.encoder import EncoderClassifier
    from pipelines.fanning import Serial
    from pipelines.signals import Hearing, read_signals, write_signals
    from pipelines.sources import fetch_pretrained
    from pipelines.techniques.lessons import lesson_from

    torch.set_num_threads(threads)
    torch.manual_seed(17)
    family = EncoderClassifier()
    with (ROOT / "data" / "support-intents.csv").open(encoding="utf-8") as file:
        pairs = {row["text"]: row["label"] for row in csv.DictReader(file)}
    texts = list(pairs)[:rows]
    labels = sorted({pairs[text] for text in texts})
    teach: Any = load_recipe(ROOT / "params.yaml", "support-intents").teach
    teacher = family.load_pretrained(fetch_pretrained(teach.source, teach.sha256), labels)
    encoded = family.encode(teacher.tokenizer, texts, MAX_LENGTH)
    wanted = Label(
        batch_size=64,
        hidden_layers=[],
        levers=Levers(cut_mix=0, dropped_words=0, typos=0, written=None),
        relations=False,
    )
    task = Task(type="text-classification", seed=17, max_length=MAX_LENGTH, threads=threads)
    hearing = Hearing(folder, family, teacher, task, wanted)
    write_signals(folder / "signals", hearing, texts, encoded, {}, {}, Serial())
    train = Split(texts, [labels.index(pairs[text]) for text in texts])
    lesson = lesson_from(CleanData(train, train, train, labels, [], "0" * 64), read_signals(folder / "signals"))
    student = family.student(teacher, StudentLayers(kind="layers", layers=LAYERS))
    return Setting(family, student, lesson, encoded, threads)


def ours(given: Setting, precision: Any) -> float:
    """The factory's loop on stored signals; one text is its validation."""
    from pipelines.bundle import Bundle
    from pipelines.config import Losses, StudentTraining
    from pipelines.data.clean import Split
    from pipelines.techniques.distilling import learn

    student = Bundle(copy.deepcopy(given.student.model), given.student.tokenizer, {})
    weights = {"kl": 1.0, "cross_entropy": 0.1, "temperature": 2.0}
    losses = Losses(**{name: weights.get(name, 0.0) for name in Losses.model_fields})
    settings = StudentTraining(
        epochs=1,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_ratio=WARM_UP,
        weight_decay=0.01,
        max_grad_norm=1.0,
        patience=1,
        precision=precision,
        vocabulary_folds=None,
    )
    first = Split(given.lesson.texts[:1], [int(given.lesson.labels[0])])
    start = time.perf_counter()
    learn(
        given.family,
        student,
        given.lesson,
        first,
        losses,
        settings,
        max_length=MAX_LENGTH,
        seed=17,
        phase="bench",
        epochs=1,
        keeper=Unkept(),
    )
    return time.perf_counter() - start


def plain(given: Setting, bf16: bool) -> float:
    """transformers' own Trainer on the true labels."""
    import datasets
    from transformers import Trainer, TrainingArguments

    rows = [
        {"input_ids": ids, "labels": int(label)} for ids, label in zip(given.encoded, given.lesson.labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARM_UP,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            use_cpu=True,
            bf16=bf16,
            report_to=[],
            save_strategy="no",
            logging_steps=1_000_000,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            seed=17,
        )
        trainer = Trainer(
            model=copy.deepcopy(given.student.model),
            args=arguments,
            data_collator=partial(_collate, given),
            train_dataset=datasets.Dataset.from_list(rows),
        )
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def _collate(given: Setting, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    import torch

    inputs = given.family.collate(given.student.tokenizer, [row["input_ids"] for row in rows])
    return {**inputs, "labels": torch.tensor([row["labels"] for row in rows])}


PLAIN = "transformers Trainer, float32"
SIDES: dict[str, Side] = {
    "factory, stored signals, float32": partial(ours, precision="fp32"),
    "factory, stored signals, bfloat16": partial(ours, precision="bf16"),
    PLAIN: partial(plain, bf16=False),
    "transformers Trainer, bfloat16": partial(plain, bf16=True),
}


def table(found: dict[str, list[float]], given: Setting, conditions: str) -> str:
    """The section as Markdown."""
    tokens = sum(map(len, given.encoded))
    lines = [
        "# Training a classifier: texts a second",
        "",
        f"{machine()}; {conditions}.",
        f"Written by `make bench-training`: {len(LAYERS)} layers of MiniLM, {len(given.encoded)} texts of the built-in corpus ({tokens} tokens), {BATCH} a step, one pass a round;",
        "median of rounds in alternating order, and the least and the most. The factory's side learns from the teacher's stored logits and the labels, the Trainer from the labels alone.",
        "",
        "| side | texts/s | least to most | to the Trainer in float32 |",
        "|---|---|---|---|",
    ]
    base = statistics.median(found[PLAIN])
    for name, rates in found.items():
        rate = statistics.median(rates)
        lines.append(f"| {name} | {rate:.0f} | {min(rates):.0f} to {max(rates):.0f} | {rate / base:.2f}x |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Label, measure, write the section."""
    disable_telemetry()
    quiet_libraries()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1024, help="texts in a pass")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    options = parser.parse_args(argv)
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        given = setting(options.rows, options.threads, Path(folder))
        sides = {name: partial(side, given) for name, side in SIDES.items()}
        found = alternate(sides, len(given.encoded), given.threads, options.rounds)
    conditions = f"{options.threads} threads a side, {options.rounds} rounds, {before} at the start"
    text = table(found, given, conditions)
    write_section(options.page, "training", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
