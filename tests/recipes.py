"""A complete recipe for the tiny corpus, and a way to change one value of it."""

from __future__ import annotations

import copy
from typing import Any

from pipelines.config import ClassificationRecipe

TRAINING: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "patience": 8,
    "precision": "fp32",
}
STUDENT_TRAINING: dict[str, Any] = TRAINING | {"vocabulary_folds": None}
LOSSES: dict[str, Any] = {
    "kl": 1.0,
    "reverse_kl": 0.0,
    "cross_entropy": 0.1,
    "hidden_mse": 0.0,
    "hidden_cosine": 0.0,
    "relation": 0.0,
    "temperature": 2.0,
}
#: What makes the tiny recipe one by budget.
BY_BUDGET: dict[str, Any] = {
    "distill__losses": LOSSES | {"relation": 0.0},
    "distill__student": {
        "kind": "elastic",
        "layers": [[0, 1, 2], [0, 2]],
        "intermediate_sizes": [64, 32],
        "num_attention_heads": [4],
        "vocabularies": [{"min_count": 1, "keep_first": 0}],
        "importance": "taylor",
        "calibration_rows": 32,
        "whole_epochs": 1,
        "random_slices": 1,
        "in_place": 1.0,
        "without_layers": {"hidden_size": 24, "training": STUDENT_TRAINING | {"learning_rate": 3e-2}},
    },
    "explore": {
        "technique": "search",
        "quantizations": {
            "float32": {"technique": "none"},
            "int8": {"technique": "dynamic_int8", "per_channel": True, "embeddings": None},
        },
        "parity": 1e-4,
        "trials": 100,
        "points": 5,
        "target": {"threads": 1, "command": None, "python": None, "instructions": [], "timeout_seconds": 100},
        "latency_rounds": 30,
        "noise": 0.5,
        "repeats": 0,
        "bootstrap_samples": 200,
    },
    "budget": {
        "max_bytes": 300_000,
        "max_p50_ms": 50.0,
        "min_texts_per_s": None,
        "max_memory_bytes": None,
        "max_accuracy_loss": 60.0,
        "cheapest": "bytes",
    },
    "prune": {
        "technique": "chosen",
        "attempts": 2,
        "hope": 1.0,
        "bootstrap_samples": 200,
        "losses": LOSSES | {"relation": 0.0},
        "recovery": STUDENT_TRAINING | {"epochs": 2},
    },
    "quantize": {"technique": "chosen", "parity": 1e-4, "calibrate": "biases"},
}
RECIPE: dict[str, Any] = {
    "task": {"type": "text-classification", "seed": 5, "max_length": 32, "threads": 1},
    "data": {
        "source": "data/tiny.csv",
        "text_column": "text",
        "label_column": "label",
        "splits": {"kind": "made", "file": None, "validation": 0.2, "test": 0.2},
        "unlabelled": None,
        "checks": {
            "empty_text": "fail",
            "long_text": {"action": "fail", "max_chars": 1000},
            "missing_label": "fail",
            "label_set": {"action": "fail", "allowed": None},
            "class_count": {"action": "fail", "min_rows": 3},
            "duplicates": "fail",
            "conflicting_labels": "fail",
            "leakage_exact": "fail",
            "leakage_near": {"action": "quarantine", "similarity": 0.95},
            "encoding_damage": "fail",
            "language": None,
        },
    },
    "teach": {
        "source": "models/tiny",
        "sha256": "0" * 64,
        "mode": "finetune",
        "label_smoothing": 0.0,
        "training": TRAINING,
    },
    "label": {
        "batch_size": 32,
        "hidden_layers": [0, 2],
        "levers": {"cut_mix": 1, "dropped_words": 0, "typos": 0, "written": None},
        "relations": True,
    },
    "distill": {
        "student": {"kind": "layers", "layers": [0, 2]},
        "losses": LOSSES | {"hidden_mse": 0.5, "hidden_cosine": 0.5, "relation": 0.5, "reverse_kl": 0.5},
        "training": STUDENT_TRAINING,
        "trial": {"epochs": 1, "bootstrap_samples": 100},
    },
    "explore": {"technique": "none"},
    "budget": None,
    "prune": {
        "technique": "structured",
        "importance": "taylor",
        "calibration_rows": 32,
        "steps": 2,
        "num_hidden_layers": None,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "vocabulary": {"min_count": 1, "keep_first": 0},
        "losses": LOSSES,
        "step_epochs": 1,
        "recovery": STUDENT_TRAINING | {"epochs": 4},
    },
    "quantize": {
        "technique": "dynamic_int8",
        "per_channel": True,
        "parity": 1e-4,
        "calibrate": "biases",
        "embeddings": None,
    },
    "evaluate": {
        "threads": 1,
        "latency_rounds": 20,
        "throughput_seconds": 0.2,
        "bootstrap_samples": 500,
        "calibration_bins": 10,
    },
    "gate": {
        "max_accuracy_loss": 100,
        "max_bytes": 5_000_000,
        "min_size_ratio": 0.1,
        "min_latency_ratio": 0.01,
        "max_calibration_error": 1.0,
    },
}


def recipe_dict(**changes: Any) -> dict[str, Any]:
    """The tiny recipe with values changed by dotted path (dots as double underscores)."""
    recipe = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        block = recipe
        for name in parents:
            block = block[name]
        block[last] = value
    return recipe


def recipe(**changes: Any) -> ClassificationRecipe:
    """The same, checked."""
    return ClassificationRecipe.model_validate(recipe_dict(**changes))
