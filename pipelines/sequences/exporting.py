"""Exporting models that answer token by token: float32 files held against torch, then made smaller."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.config import BlockwiseTokens, FloatTokens, Int8Tokens, Task
from pipelines.data.clean import CleanData
from pipelines.families.sequences import Example, SequenceFamily
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
    wanted: FloatTokens | Int8Tokens | BlockwiseTokens,
) -> dict[str, Any]:
    """Write the exported files into `out`; what is to be remembered of it: the parity, and how many matrices were converted.

    Raises ModelError where the float32 files differ from torch by more than quantize.parity, or in a greedy token.
    """
    examples = family.examples(bundle, data.train, task.max_length)
    whole = out / WHOLE
    whole.mkdir(parents=True)
    names = family.export(bundle, whole, task.max_length)
    parity = family.check_export(bundle, whole, examples, wanted.parity)
    converted = shrink(family, bundle, whole, names, out, examples, task, wanted)
    shutil.rmtree(whole)
    return {"parity": parity, "converted_matrices": converted}


def shrink(
    family: SequenceFamily,
    bundle: Bundle,
    whole: Path,
    names: Sequence[str],
    out: Path,
    examples: list[Example],
    task: Task,
    wanted: FloatTokens | Int8Tokens | BlockwiseTokens,
) -> dict[str, int]:
    """Float32 files in `whole` to files in `out` as the recipe says; how many matrices of each were converted.

    Raises ModelError where one of the model's matrices was passed over.
    """
    converted = {name: _shrink(family, bundle, whole, name, out, examples, task, wanted) for name in names}
    if not isinstance(wanted, FloatTokens):
        require_count(out, sum(converted.values()), expected_products(bundle.model))
    return converted


def _shrink(
    family: SequenceFamily,
    bundle: Bundle,
    whole: Path,
    name: str,
    out: Path,
    examples: list[Example],
    task: Task,
    wanted: FloatTokens | Int8Tokens | BlockwiseTokens,
) -> int:
    """One file, quantized as the recipe says; how many matrices were converted."""
    if isinstance(wanted, FloatTokens):
        for file in sorted(whole.glob(f"{name}*")):
            file.rename(out / file.name)
        return 0
    if isinstance(wanted, Int8Tokens):
        return dynamic_int8_products(whole / name, out / name, per_channel=wanted.per_channel)
    moments = None
    if wanted.rounding == "gptq":
        sample = np.random.default_rng(task.seed).permutation(len(examples))[: wanted.calibration_rows]
        feeds = family.feeds(bundle, whole, [examples[index] for index in sample])
        moments = input_moments(whole / name, feeds[name], task.threads)
    return in_blocks(whole / name, out / name, wanted, moments)
