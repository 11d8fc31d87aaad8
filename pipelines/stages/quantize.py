"""Stage `quantize`: export to ONNX, hold the file against torch, then make it smaller."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.bundle import LINEAGE, Bundle, extend_lineage, write_json
from pipelines.config import (
    BlockwiseTokens,
    DynamicInt8,
    FloatTokens,
    Int8Tokens,
    NoQuantization,
    StaticInt8,
    Task,
)
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of, load_bundle, sequence_family_of
from pipelines.families.base import Family
from pipelines.reproducible import fix_randomness
from pipelines.sequences.exporting import export_sequences
from pipelines.stages import Output
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.quantizing import dynamic_int8, fit_temperature, static_int8
from pipelines.techniques.scoring import predict_logits


def quantize(
    clean: Path,
    pruned: Path,
    exported: Output,
    task: Task,
    quantize: NoQuantization | DynamicInt8 | StaticInt8 | FloatTokens | Int8Tokens | BlockwiseTokens,
) -> None:
    """Write config, tokenizer and the exported files.

    Raises ModelError where an exported float32 file differs from torch by more than quantize.parity.
    """
    fix_randomness(task)
    data, bundle = load_clean(clean), load_bundle(pruned, task)
    exported.mkdir(parents=True)
    if isinstance(quantize, FloatTokens | Int8Tokens | BlockwiseTokens):
        facts = export_sequences(sequence_family_of(task), bundle, data, exported, task, quantize)
        _save_generation(bundle, exported)
    else:
        facts = _export_classifier(bundle, data, exported, task, quantize)
    _save_beside(bundle, exported)
    facts = {"params": quantize.model_dump()} | facts
    write_json(exported / LINEAGE, extend_lineage(bundle.lineage, "quantize", facts))


def _export_classifier(
    bundle: Bundle, data: CleanData, exported: Path, task: Task, wanted: NoQuantization | DynamicInt8 | StaticInt8
) -> dict[str, Any]:
    family = family_of(task)
    temperature = _calibrate(family, bundle, data, task) if wanted.calibrate else 1.0
    whole = exported / "float32.onnx"
    export_onnx(family, bundle, task.max_length, whole)
    parity = check_parity(whole, family, bundle, data.train.texts[:PARITY_TEXTS], task.max_length, wanted.parity)
    _shrink(whole, exported / "model.onnx", family, bundle, data, task, wanted)
    return {"parity": parity, "temperature": temperature}


def _save_generation(bundle: Bundle, out: Path) -> None:
    """generation_config.json, where the model writes: which tokens begin, end and pad."""
    settings = getattr(bundle.model, "generation_config", None)
    if settings is not None:
        settings.eos_token_id = settings.eos_token_id or bundle.tokenizer.eos_token_id
        settings.pad_token_id = bundle.tokenizer.pad_token_id
        settings.save_pretrained(out)


def _calibrate(family: Family, bundle: Bundle, data: CleanData, task: Task) -> float:
    """Fit the temperature on validation and fold it into the head."""
    encoded = family.encode(bundle.tokenizer, data.validation.texts, task.max_length)
    logits = predict_logits(family, bundle.model, bundle.tokenizer, encoded)
    temperature = fit_temperature(logits, torch.tensor(data.validation.labels))
    family.scale_logits(bundle.model, 1 / temperature)
    return temperature


def _shrink(
    source: Path,
    out: Path,
    family: Family,
    bundle: Bundle,
    data: CleanData,
    task: Task,
    wanted: NoQuantization | DynamicInt8 | StaticInt8,
) -> None:
    """Quantize as the recipe says; the float32 file does not stay."""
    if isinstance(wanted, NoQuantization):
        source.rename(out)
        return
    if isinstance(wanted, DynamicInt8):
        dynamic_int8(source, out, per_channel=wanted.per_channel)
    else:
        sample = np.random.default_rng(task.seed).permutation(len(data.train.texts))[: wanted.calibration_rows]
        rows = family.encode(bundle.tokenizer, [data.train.texts[index] for index in sample], task.max_length)
        batches = [
            {name: value.numpy() for name, value in family.collate(bundle.tokenizer, [row]).items()} for row in rows
        ]
        static_int8(source, out, batches, per_channel=wanted.per_channel)
    source.unlink()


def _save_beside(bundle: Bundle, out: Path) -> None:
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
