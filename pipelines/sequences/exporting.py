"""Exporting models that answer token by token: float32 files held against torch, then made smaller."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import DynamicForm, FloatForm, MixedForm, Task, TokenForm
from pipelines.data.clean import CleanData
from pipelines.families.sequences import Example, Feed, SequenceFamily
from pipelines.techniques.mixed_precision import Matrix, mixed_in_blocks
from pipelines.techniques.quantizing_weights import dynamic_int8_products, in_blocks, input_moments
from pipelines.techniques.weightmatrices import expected_products, require_count

#: Folder of the float32 files, which do not stay.
WHOLE = "float32"


def export_sequences(
    family: SequenceFamily,
    bundle: Bundle,
    data: CleanData,
    out: Path,
    task: Task,
    parity: float,
    wanted: TokenForm,
) -> dict[str, Any]:
    """Write the exported files into `out`; what is to be remembered of it: the parity, and what `shrink` answers.

    Raises ModelError where the float32 files differ from torch by more than quantize.parity, or in a greedy token.
    """
    examples = family.examples(bundle, data.train, task.max_length)
    whole = out / WHOLE
    whole.mkdir(parents=True)
    names = family.export(bundle, whole, task.max_length)
    found_parity = family.check_export(bundle, whole, examples, parity)
    found = shrink(family, bundle, whole, names, out, examples, task, wanted)
    shutil.rmtree(whole)
    return {"parity": found_parity} | found


def shrink(
    family: SequenceFamily,
    bundle: Bundle,
    whole: Path,
    names: Sequence[str],
    out: Path,
    examples: list[Example],
    task: Task,
    wanted: TokenForm,
) -> dict[str, Any]:
    """Float32 files in `whole` to files in `out` as the recipe says; how many matrices of each were converted, and where they differ how.

    Raises ModelError where one of the model's matrices was passed over.
    """
    answers = {name: _shrink(family, bundle, whole, name, out, examples, task, wanted) for name in names}
    converted = {name: count for name, (count, _) in answers.items()}
    if not isinstance(wanted, FloatForm):
        require_count(out, sum(converted.values()), expected_products(bundle.model))
    if not isinstance(wanted, MixedForm):
        return {"converted_matrices": converted}
    matrices = [asdict(each) for _, found in answers.values() for each in found]
    return {"converted_matrices": converted, "matrices": matrices}


def _shrink(
    family: SequenceFamily,
    bundle: Bundle,
    whole: Path,
    name: str,
    out: Path,
    examples: list[Example],
    task: Task,
    wanted: TokenForm,
) -> tuple[int, list[Matrix]]:
    """One file, quantized as the recipe says; how many matrices were converted, and each one's precision where they differ."""
    if isinstance(wanted, FloatForm):
        for file in sorted(whole.glob(f"{name}*")):
            file.rename(out / file.name)
        return 0, []
    if isinstance(wanted, DynamicForm):
        converted = dynamic_int8_products(
            whole / name, out / name, per_channel=wanted.per_channel, embeddings=wanted.embeddings
        )
        return converted, []
    feeds: list[Feed] = []
    if isinstance(wanted, MixedForm) or wanted.rounding == "gptq":
        sample = np.random.default_rng(task.seed).permutation(len(examples))[: wanted.calibration_rows]
        feeds = family.feeds(bundle, whole, [examples[index] for index in sample])[name]
    if isinstance(wanted, MixedForm):
        return mixed_in_blocks(whole / name, out / name, wanted, feeds, task.threads, bundle.model)
    moments = input_moments(whole / name, feeds, task.threads) if feeds else None
    return in_blocks(whole / name, out / name, wanted, moments), []


def save_generation(bundle: Bundle, out: Path) -> None:
    """generation_config.json, where the model writes: which tokens begin, end and pad."""
    settings = getattr(bundle.model, "generation_config", None)
    if settings is not None:
        settings.eos_token_id = settings.eos_token_id or bundle.tokenizer.eos_token_id
        settings.pad_token_id = bundle.tokenizer.pad_token_id
        settings.save_pretrained(out)
