"""What a classifier's export leaves on disk: the quantized file, and what a user needs beside it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import DynamicForm, FloatForm, Form, StaticForm, Task
from pipelines.data.clean import CleanData
from pipelines.families.base import Family
from pipelines.techniques.quantizing import dynamic_int8, static_int8
from pipelines.techniques.quantizing_weights import in_blocks, input_moments
from pipelines.techniques.weightmatrices import expected_products, require_count


def shrink(source: Path, out: Path, family: Family, bundle: Bundle, data: CleanData, task: Task, wanted: Form) -> None:
    """Quantize as the recipe says; the float32 file stays what it is. Raises ModelError where a matrix did not convert."""
    if isinstance(wanted, FloatForm):
        shutil.copyfile(source, out)
    elif isinstance(wanted, DynamicForm):
        dynamic_int8(source, out, per_channel=wanted.per_channel)
    elif isinstance(wanted, StaticForm):
        batches = _calibration(family, bundle, data, task, wanted.calibration_rows)
        static_int8(source, out, batches, per_channel=wanted.per_channel)
    else:
        moments = None
        if wanted.rounding == "gptq":
            batches = _calibration(family, bundle, data, task, wanted.calibration_rows)
            moments = input_moments(source, batches, task.threads)
        require_count(out, in_blocks(source, out, wanted, moments), expected_products(bundle.model))


def _calibration(family: Family, bundle: Bundle, data: CleanData, task: Task, rows: int) -> list[dict[str, np.ndarray]]:
    """Feeds of single training texts, a fixed random sample."""
    sample = np.random.default_rng(task.seed).permutation(len(data.train.texts))[:rows]
    encoded = family.encode(bundle.tokenizer, [data.train.texts[index] for index in sample], task.max_length)
    return [{name: value.numpy() for name, value in family.collate(bundle.tokenizer, [row]).items()} for row in encoded]


def save_beside(bundle: Bundle, out: Path) -> None:
    """config.json and the tokenizer, the latter without white space: every user downloads it.

    A checkpoint's own code stays behind, and the mention of it: the exported graph needs none, and no user should run any.
    """
    config = copy.deepcopy(bundle.model.config)
    config.name_or_path = ""
    config._auto_class = None
    if hasattr(config, "auto_map"):
        del config.auto_map
    config.save_pretrained(out)
    bundle.tokenizer.name_or_path = ""
    bundle.tokenizer.save_pretrained(out)
    path = out / "tokenizer.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":")),
        encoding="utf-8",
    )
