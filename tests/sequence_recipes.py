"""Complete recipes of models that answer token by token, over a tiny corpus, and a way to change one value of each."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

from pipelines.config import RECIPES, SequenceRecipe
from tests.recipes import BY_BUDGET, TRAINING

CHECKS: dict[str, Any] = {
    "empty_text": "fail",
    "long_text": {"action": "fail", "max_chars": 1000},
    "duplicates": "quarantine",
    "leakage_exact": "quarantine",
    "leakage_near": None,
    "encoding_damage": "fail",
    "language": None,
}
TOKEN_LOSSES: dict[str, Any] = {
    "divergence": "forward_kl",
    "weight": 1.0,
    "mixture": 0.5,
    "temperature": 1.0,
    "cross_entropy": 0.1,
    "chunk_rows": 64,
}
SEQUENCE_TRAINING = TRAINING | {"epochs": 2, "patience": 2}
GENERATION: dict[str, Any] = {
    "task": {"type": "text-generation", "seed": 5, "max_length": 24, "threads": 1},
    "data": {
        "source": "data/tiny.csv",
        "text_column": "text",
        "splits": {"kind": "made", "file": None, "validation": 0.2, "test": 0.2},
        "checks": CHECKS,
    },
    "teach": {"mode": "ready", "source": "models/tiny", "sha256": "0" * 64, "trust_remote_code": None},
    "label": {"batch_size": 8, "signals": {"kind": "top_k", "k": 8}, "texts": None},
    "distill": {
        "student": {"kind": "layers", "layers": [0, 2]},
        "losses": TOKEN_LOSSES,
        "on_policy": None,
        "control": False,
        "training": SEQUENCE_TRAINING,
    },
    "explore": {"technique": "none"},
    "budget": None,
    "prune": {
        "technique": "structured",
        "importance": "taylor",
        "calibration_rows": 8,
        "steps": 1,
        "num_hidden_layers": None,
        "intermediate_size": 32,
        "num_attention_heads": None,
        "hidden_size": None,
        "num_experts": None,
        "vocabulary": {"min_count": 1, "keep_first": 0},
        "losses": TOKEN_LOSSES,
        "step_epochs": 1,
        "recovery": SEQUENCE_TRAINING | {"epochs": 1},
    },
    "quantize": {"technique": "none", "parity": 1e-3},
    "evaluate": {
        "threads": 1,
        "rows": 4,
        "prompt_tokens": 4,
        "new_tokens": 8,
        "latency_rounds": 3,
        "bootstrap_samples": 100,
    },
    "gate": {"bounds": [{"metric": "model.bytes", "at_most": 5_000_000, "at_least": None}]},
}
TASK_CHANGES: dict[str, dict[str, Any]] = {
    "text-generation": {},
    "text-to-text": {
        "task": {"type": "text-to-text", "seed": 5, "max_length": 24, "threads": 1, "max_target_length": 12},
        "data": GENERATION["data"] | {"target_column": "target", "checks": CHECKS | {"missing_target": "fail"}},
    },
    "token-classification": {
        "task": {"type": "token-classification", "seed": 5, "max_length": 24, "threads": 1},
        "data": GENERATION["data"] | {"tags_column": "tags", "checks": CHECKS | {"misaligned_tags": "fail"}},
    },
}


def by_budget(task: str) -> dict[str, Any]:
    """What makes a tiny recipe of a model that writes on, or of a tagger, one by budget."""
    writes = task == "text-generation"
    student = {
        "kind": "elastic",
        "layers": [[0, 1, 2], [0, 2]],
        "intermediate_sizes": [32],
        "num_attention_heads": [],
        "vocabulary": {"min_count": 1, "keep_first": 0},
        "importance": "taylor",
        "calibration_rows": 8,
        "whole_epochs": 1,
        "random_slices": 1,
        "in_place": 1.0,
    }
    forms = {
        "float32": {"technique": "none"},
        "int8": {"technique": "dynamic_int8", "per_channel": True, "embeddings": None},
    }
    search = BY_BUDGET["explore"] | {"quantizations": forms, "parity": 1e-3, "latency_rounds": 20, "points": 4}
    lost, rate = ("bits_per_byte", "tokens") if writes else ("span_f1", "texts")
    budget = dict.fromkeys(("max_bytes", "max_p50_ms", "max_memory_bytes", f"min_{rate}_per_s"))
    recovery = {"losses": TOKEN_LOSSES, "recovery": SEQUENCE_TRAINING}
    return {
        "distill__student": student,
        "explore": search | ({"prompt_tokens": 4, "new_tokens": 6} if writes else {}),
        "budget": budget | {f"max_{lost}_loss": 50.0, "cheapest": "bytes"},
        "prune": {"technique": "chosen", "attempts": 2, "hope": 1.0, "bootstrap_samples": 200} | recovery,
        "quantize": {"technique": "chosen", "parity": 1e-3},
    }


def sequence_recipe_dict(task: str, **changes: Any) -> dict[str, Any]:
    """The tiny recipe of a task with values changed by dotted path (dots as double underscores)."""
    recipe = copy.deepcopy(GENERATION | TASK_CHANGES[task])
    for path, value in changes.items():
        *parents, last = path.split("__")
        block = recipe
        for name in parents:
            block = block[name]
        block[last] = copy.deepcopy(value)
    return recipe


def sequence_recipe(task: str, **changes: Any) -> SequenceRecipe:
    """The same, checked."""
    checked: Any = RECIPES[task].model_validate(sequence_recipe_dict(task, **changes))
    found: SequenceRecipe = checked
    return found


def sequence_rows() -> list[dict[str, str]]:
    """60 short texts, each with an answer and a tag for each word."""
    subjects, verbs, things = (
        ("the cat", "a dog", "Tom", "my friend", "Anna"),
        ("sees", "reads", "finds"),
        ("a book", "the moon", "Berlin", "two maps"),
    )
    rows = []
    for subject in subjects:
        for verb in verbs:
            for thing in things:
                text = f"{subject} {verb} {thing}"
                tags = ["B-NAME" if word in ("Tom", "Anna", "Berlin") else "O" for word in text.split()]
                rows.append({"text": text, "target": f"{thing} {verb}", "tags": " ".join(tags)})
    return rows


def write_rows(path: Path) -> Path:
    """A file with all three columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "target", "tags"])
        writer.writeheader()
        writer.writerows(sequence_rows())
    return path
