"""What a classifier's export leaves on disk: the quantized file, and what a user needs beside it."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import DynamicForm, FloatForm, Form, MixedForm, StaticForm, Task
from pipelines.data.clean import CleanData
from pipelines.families.base import Family
from pipelines.techniques.mixed_precision import mixed_in_blocks
from pipelines.techniques.quantizing import dynamic_int8, static_int8
from pipelines.techniques.quantizing_weights import in_blocks, input_moments
from pipelines.techniques.weightmatrices import expected_products, require_count

#: Texts that are answered together where a sensitivity is measured.
BATCH = 32


def shrink(
    source: Path, out: Path, family: Family, bundle: Bundle, data: CleanData, task: Task, wanted: Form
) -> dict[str, Any]:
    """Quantize as the recipe says; the float32 file stays what it is. Answers what is to be remembered of it.

    Raises ModelError where a matrix did not convert.
    """
    if isinstance(wanted, FloatForm):
        shutil.copyfile(source, out)
    elif isinstance(wanted, DynamicForm):
        dynamic_int8(source, out, per_channel=wanted.per_channel, embeddings=wanted.embeddings)
    elif isinstance(wanted, StaticForm):
        batches = _calibration(family, bundle, data, task, wanted.calibration_rows)
        static_int8(source, out, batches, per_channel=wanted.per_channel)
    elif isinstance(wanted, MixedForm):
        batches = _calibration(family, bundle, data, task, wanted.calibration_rows, together=BATCH)
        converted, matrices = mixed_in_blocks(source, out, wanted, batches, task.threads, bundle.model)
        require_count(out, converted, expected_products(bundle.model))
        return {"matrices": [asdict(each) for each in matrices]}
    else:
        moments = None
        if wanted.rounding == "gptq":
            batches = _calibration(family, bundle, data, task, wanted.calibration_rows)
            moments = input_moments(source, batches, task.threads)
        require_count(out, in_blocks(source, out, wanted, moments), expected_products(bundle.model))
    return {}


def _calibration(
    family: Family, bundle: Bundle, data: CleanData, task: Task, rows: int, together: int = 1
) -> list[dict[str, np.ndarray]]:
    """Feeds of `together` training texts each, a fixed random sample; texts of like length stand together."""
    sample = np.random.default_rng(task.seed).permutation(len(data.train.texts))[:rows]
    encoded = family.encode(bundle.tokenizer, [data.train.texts[index] for index in sample], task.max_length)
    if together > 1:
        encoded = sorted(encoded, key=len)
    batches = [encoded[at : at + together] for at in range(0, len(encoded), together)]
    return [{name: value.numpy() for name, value in family.collate(bundle.tokenizer, one).items()} for one in batches]


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
