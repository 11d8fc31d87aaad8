"""`make bench-distillation`: tokens a second of training a student, the same one on the same blocks of text in float32, three ways.

- the factory: `learn_tokens` on signals that `label` stored before; what label took is told beside it;
- TRL's GKDTrainer, whose teacher runs in every step (off-policy, forward KL over the whole vocabulary);
- transformers' Trainer on cross-entropy, without a teacher.

The sides take turns, each with a fresh copy of the student, and a round is one pass over the blocks.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.pages import load, machine, write_section
from benchmarks.rounds import alternate
from pipelines.environment import disable_telemetry, quiet_libraries
from pipelines.techniques.course import Unkept

TRL = "1.16.0"
VOCABULARY, LENGTH, BATCH, TOP = 8192, 256, 8, 32
LEARNING_RATE, WARM_UP = 1e-3, 0.1
_COMMON: dict[str, Any] = {"head_dim": 32, "max_position_embeddings": LENGTH, "tie_word_embeddings": True}
TEACHER: dict[str, Any] = _COMMON | {
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
STUDENT: dict[str, Any] = _COMMON | {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


@dataclass(frozen=True)
class Setting:
    """Teacher, student and the blocks that all sides learn from; `tokens` are those of one pass."""

    family: Any
    teacher: Any
    student: Any
    examples: list[Any]
    threads: int

    @property
    def tokens(self) -> int:
        """Tokens that pass through the student in one pass over the blocks."""
        return sum(len(example.ids) for example in self.examples)


#: Trains a fresh copy of the student on every block once; the seconds of the training call.
Side = Callable[[Setting], float]


def setting(blocks: int, threads: int) -> Setting:
    """Random weights, a real tokenizer, and the first blocks of the standard library's functions."""
    import torch

    from pipelines.config import FreshStudent, FreshTokenizer
    from pipelines.data.clean import Split
    from pipelines.families.causal import CausalModel
    from pipelines.families.fresh import fresh_model, resized_model, train_tokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(17)
    family, texts = CausalModel(), library_texts()
    tokenizer = train_tokenizer(FreshTokenizer(kind="byte_bpe", vocab_size=VOCABULARY), texts, LENGTH)
    teacher = fresh_model(family.auto, fresh_teacher(), tokenizer, LENGTH)
    student = resized_model(family.auto, teacher, FreshStudent(kind="random", sizes=STUDENT))
    whole = [one for one in family.examples(teacher, Split(texts[: 40 * blocks]), LENGTH) if len(one.ids) == LENGTH]
    if len(whole) < blocks:
        raise SystemExit(f"the standard library gave {len(whole)} blocks of {LENGTH} tokens, not {blocks}")
    return Setting(family, teacher, student, whole[:blocks], threads)


def fresh_teacher() -> Any:
    """The teacher as a recipe would name it."""
    from pipelines.config import FreshTeacher, FreshTokenizer

    return FreshTeacher(
        mode="scratch",
        architecture="llama",
        sizes=TEACHER,
        tokenizer=FreshTokenizer(kind="byte_bpe", vocab_size=VOCABULARY),
        training=training(),
    )


def training() -> Any:
    """The loop's settings, as far as all sides have them."""
    from pipelines.config import Training

    return Training(
        epochs=1,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_ratio=WARM_UP,
        weight_decay=0.0,
        max_grad_norm=1.0,
        patience=1,
        precision="fp32",
    )


def library_texts() -> list[str]:
    """Functions of this Python's standard library."""
    import sysconfig

    from pipelines.data.stdlib import functions_of, source_files

    root = Path(sysconfig.get_paths()["stdlib"])
    return [
        function.source
        for path in source_files(root)
        for function in functions_of(path.read_bytes().decode("utf-8", "ignore"))
    ]


def label(given: Setting, folder: Path) -> float:
    """Store the teacher's signals as the stage does; seconds."""
    import torch

    from pipelines.config import Task, TokenLabel, TopKSignals
    from pipelines.fanning import Serial
    from pipelines.sequences.labelling import write_labels

    wanted = TokenLabel(batch_size=16, signals=TopKSignals(kind="top_k", k=TOP), texts=None)
    start = time.perf_counter()
    task = Task(type="text-generation", seed=17, max_length=LENGTH, threads=torch.get_num_threads())
    taught = (folder, given.family, given.teacher)
    write_labels(folder, taught, given.examples, wanted, {"label": wanted.model_dump()}, task, Serial())
    return time.perf_counter() - start


def ours(given: Setting, folder: Path, true_classes: float) -> float:
    """The factory's loop on stored signals; one example is its validation."""
    from pipelines.bundle import Bundle
    from pipelines.config import TokenLosses
    from pipelines.sequences.labelling import read_labels
    from pipelines.techniques.token_learning import TokenLesson, learn_tokens

    student = Bundle(copy.deepcopy(given.student.model), given.student.tokenizer, {})
    losses = TokenLosses(
        divergence="forward_kl",
        weight=1.0,
        mixture=0.5,
        temperature=1.0,
        cross_entropy=true_classes,
        chunk_rows=512,
    )
    start = time.perf_counter()
    labelled = read_labels(folder, given.examples)
    lesson = TokenLesson(labelled.examples, labelled.signals)
    learn_tokens(
        given.family,
        student,
        lesson,
        given.examples[:1],
        losses,
        training(),
        seed=17,
        phase="bench",
        epochs=1,
        keeper=Unkept(),
    )
    return time.perf_counter() - start


def gkd(given: Setting) -> float:
    """TRL: the teacher in every step, KL of whole distributions."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    with tempfile.TemporaryDirectory() as folder:
        arguments = GKDConfig(
            **_arguments(folder), lmbda=0.0, beta=0.0, temperature=1.0, gradient_checkpointing=False, bf16=False
        )
        trainer = GKDTrainer(
            model=copy.deepcopy(given.student.model),
            teacher_model=given.teacher.model,
            args=arguments,
            data_collator=_collate,
            train_dataset=_dataset(given),
            processing_class=given.student.tokenizer,
        )
        return _timed(trainer)


def cross_entropy(given: Setting) -> float:
    """transformers' own Trainer on the next token."""
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=copy.deepcopy(given.student.model),
            args=TrainingArguments(**_arguments(folder)),
            data_collator=_collate,
            train_dataset=_dataset(given),
        )
        return _timed(trainer)


def _arguments(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARM_UP,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1_000_000,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "seed": 17,
    }


def _timed(trainer: Any) -> float:
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def _dataset(given: Setting) -> Any:
    import datasets

    return datasets.Dataset.from_list([{"input_ids": list(one.ids)} for one in given.examples])


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Blocks are of one length: nothing is padded."""
    import torch

    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def table(found: dict[str, list[float]], given: Setting, label_s: float, conditions: str) -> str:
    """The section as Markdown."""
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    trl, plain = (medians[name] for name in (GKD, PLAIN))
    weights = [sum(one.numel() for one in bundle.model.parameters()) / 1e6 for bundle in (given.teacher, given.student)]
    lines = [
        "# Distilling: tokens a second of training",
        "",
        f"{machine()}; {conditions}.",
        f"Written by `make bench-distillation`: a Llama of {weights[0]:.1f} M weights teaches one of {weights[1]:.1f} M, vocabulary {len(given.teacher.tokenizer)}, "
        f"{len(given.examples)} blocks of {LENGTH} tokens, {BATCH} a step, float32, AdamW; median of rounds in alternating order, and the least and the most.",
        f"The stored signals are the top {TOP} and the mass of the rest; TRL {TRL} compares whole distributions, off-policy (lmbda 0), forward KL (beta 0), no gradient checkpointing.",
        f"Storing them is done once: {label_s:.1f} s, {given.tokens / label_s:.0f} tokens/s, and is not in the rates below; the last two columns count it, over 1 and 3 passes.",
        "",
        "| side | tokens/s | least to most | to TRL | to plain cross-entropy | label counted, 1 pass | 3 passes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rates in found.items():
        rate = medians[name]
        whole = [_with_label(rate, given.tokens, label_s if name in STORED else 0.0, passes) / trl for passes in (1, 3)]
        lines.append(
            f"| {name} | {rate:.0f} | {min(rates):.0f} to {max(rates):.0f} | {rate / trl:.2f}x | {rate / plain:.2f}x | {whole[0]:.2f}x TRL | {whole[1]:.2f}x TRL |"
        )
    return "\n".join(lines)


def _with_label(rate: float, tokens: int, label_s: float, passes: int) -> float:
    return passes * tokens / (passes * tokens / rate + label_s)


GKD, PLAIN = "TRL GKDTrainer, teacher every step", "transformers Trainer, cross-entropy alone"
#: Side -> weight of the cross-entropy beside the divergence.
STORED = {"factory, stored signals": 0.0, "factory, stored signals and true classes": 0.2}


def main(argv: list[str]) -> int:
    """Label, measure, write the section."""
    disable_telemetry()
    quiet_libraries()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=64, help=f"blocks of {LENGTH} tokens in a pass")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    options = parser.parse_args(argv)
    require_trl()
    before = load()
    given = setting(options.blocks, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        signals = Path(folder) / "signals"
        label_s = label(given, signals)
        sides: dict[str, Side] = {
            name: partial(ours, folder=signals, true_classes=weight) for name, weight in STORED.items()
        }
        sides |= {GKD: gkd, PLAIN: cross_entropy}
        bound = {name: partial(side, given) for name, side in sides.items()}
        found = alternate(bound, given.tokens, options.threads, options.rounds)
    conditions = f"{options.threads} threads a side, {options.rounds} rounds, {before} at the start"
    text = table(found, given, label_s, conditions)
    write_section(options.page, "distillation", text)
    print(text)
    return 0


def require_trl() -> None:
    """SystemExit unless the rival is there at its version."""
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != TRL:
        raise SystemExit(f"TRL {TRL} is needed to compare with, found {found}; run `make bench-distillation`")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
