"""What a classifier's export leaves on disk: the quantized file, and what a user needs beside it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import ChosenQuantization, DynamicInt8, NoQuantization, Search, StaticInt8, Task
from pipelines.data.clean import CleanData
from pipelines.families.base import Family
from pipelines.techniques.quantizing import dynamic_int8, static_int8


def quantization_named(name: str, settings: ChosenQuantization | Search) -> NoQuantization | DynamicInt8 | StaticInt8:
    """The quantization that a point of the front names."""
    shared = {"parity": settings.parity, "calibrate": False, "technique": name}
    if name == "none":
        return NoQuantization.model_validate(shared)
    if name == "dynamic_int8":
        return DynamicInt8.model_validate(shared | {"per_channel": settings.per_channel})
    rows = {"calibration_rows": settings.calibration_rows}
    return StaticInt8.model_validate(shared | {"per_channel": settings.per_channel} | rows)


def shrink(
    source: Path,
    out: Path,
    family: Family,
    bundle: Bundle,
    data: CleanData,
    task: Task,
    wanted: NoQuantization | DynamicInt8 | StaticInt8,
) -> None:
    """Quantize as the recipe says; the float32 file stays what it is."""
    if isinstance(wanted, NoQuantization):
        shutil.copyfile(source, out)
    elif isinstance(wanted, DynamicInt8):
        dynamic_int8(source, out, per_channel=wanted.per_channel)
    else:
        sample = np.random.default_rng(task.seed).permutation(len(data.train.texts))[: wanted.calibration_rows]
        rows = family.encode(bundle.tokenizer, [data.train.texts[index] for index in sample], task.max_length)
        batches = [
            {name: value.numpy() for name, value in family.collate(bundle.tokenizer, [row]).items()} for row in rows
        ]
        static_int8(source, out, batches, per_channel=wanted.per_channel)


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
