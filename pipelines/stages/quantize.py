"""Stage `quantize`: export to ONNX, hold the file against torch, then make it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipelines.bundle import LINEAGE, Bundle, extend_lineage, write_json
from pipelines.config import (
    Blockwise,
    BlockwiseTokens,
    Calibrate,
    ChosenQuantization,
    ChosenTokens,
    DynamicInt8,
    FloatTokens,
    Int8Tokens,
    Mixed,
    MixedTokens,
    NoQuantization,
    StaticForm,
    StaticInt8,
    Task,
)
from pipelines.data.clean import CleanData, load_clean
from pipelines.exploring.chosen import chosen_form
from pipelines.exporting import save_beside, shrink
from pipelines.families import family_of, load_bundle, sequence_family_of
from pipelines.families.base import Family
from pipelines.reproducible import fix_randomness
from pipelines.sequences.exporting import export_sequences, save_generation
from pipelines.stages import Output
from pipelines.techniques.calibrating import fit_biases, fit_temperature
from pipelines.techniques.exporting import PARITY_TEXTS, check_parity, export_onnx
from pipelines.techniques.scoring import predict_logits

#: What a classifier's recipe may say.
Quantization = NoQuantization | DynamicInt8 | StaticInt8 | Blockwise | Mixed | ChosenQuantization


def quantize(
    clean: Path,
    pruned: Path,
    exported: Output,
    task: Task,
    quantize: Quantization | FloatTokens | Int8Tokens | BlockwiseTokens | MixedTokens | ChosenTokens,
) -> None:
    """Write config, tokenizer and the exported files.

    Raises ModelError where an exported float32 file differs from torch by more than quantize.parity.
    """
    fix_randomness(task)
    data, bundle = load_clean(clean), load_bundle(pruned, task)
    exported.mkdir(parents=True)
    if isinstance(quantize, FloatTokens | Int8Tokens | BlockwiseTokens | MixedTokens | ChosenTokens):
        form = chosen_form(bundle.lineage) if isinstance(quantize, ChosenTokens) else quantize
        assert not isinstance(form, StaticForm)  # no search over such models has one
        facts = export_sequences(sequence_family_of(task), bundle, data, exported, task, quantize.parity, form)
        save_generation(bundle, exported)
    else:
        facts = _export_classifier(bundle, data, exported, task, quantize)
    save_beside(bundle, exported)
    facts = {"params": quantize.model_dump()} | facts
    write_json(exported / LINEAGE, extend_lineage(bundle.lineage, "quantize", facts))


def _export_classifier(
    bundle: Bundle,
    data: CleanData,
    exported: Path,
    task: Task,
    wanted: Quantization,
) -> dict[str, Any]:
    family = family_of(task)
    calibrated = _calibrate(family, bundle, data, task, wanted.calibrate)
    whole = exported / "float32.onnx"
    export_onnx(family, bundle, task.max_length, whole)
    parity = check_parity(whole, family, bundle, data.train.texts[:PARITY_TEXTS], task.max_length, wanted.parity)
    form = chosen_form(bundle.lineage) if isinstance(wanted, ChosenQuantization) else wanted
    found = shrink(whole, exported / "model.onnx", family, bundle, data, task, form)
    whole.unlink()
    return {"parity": parity, "calibration": calibrated} | found


def _calibrate(family: Family, bundle: Bundle, data: CleanData, task: Task, how: Calibrate) -> dict[str, Any]:
    """Fit on validation and fold into the head; what was found, as the lineage tells it."""
    if how == "none":
        return {}
    encoded = family.encode(bundle.tokenizer, data.validation.texts, task.max_length)
    logits = predict_logits(family, bundle.model, bundle.tokenizer, encoded)
    fit = fit_biases if how == "biases" else fit_temperature
    found = fit(logits, torch.tensor(data.validation.labels))
    family.calibrate(bundle.model, found.temperature, found.biases)
    biases = dict(zip(data.labels, (round(bias, 4) for bias in found.biases.tolist()), strict=True))
    return {"temperature": round(found.temperature, 4), "ridge": found.ridge, "biases": biases if found.ridge else None}
