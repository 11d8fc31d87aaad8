"""One GGUF file: metadata and tensors, each in the type that it can have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import ModelError
from pipelines.families.llama_cpp import Fact, Facts

#: What `--type` takes -> GGUF's number for a file that is mostly so.
FILE_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}
#: Elements of a row that share a scale.
BLOCK = 32
#: Tensors that stay float32: a few bytes, or what llama.cpp adds to float32.
_EXACT = ("norm.weight", ".bias", "position_embd.weight", "ffn_gate_inp.weight", "rope_freqs.weight")
#: What every token passes: one step finer in four bits.
_ENDS = ("token_embd.weight", "output.weight")


def write_gguf(
    out: Path, arch: str, facts: Facts, tensors: Iterable[tuple[str, np.ndarray]], wanted: str
) -> dict[str, Any]:
    """Write float32 tensors as `wanted`; what became of them: tensors by type, and names of the wider ones that could not be had.

    The bytes depend on the arguments alone. Raises ModelError where a weight is beyond float16.
    """
    import gguf

    writer = gguf.GGUFWriter(out, arch)
    for key, fact in facts.items():
        writer.add_key_value(key, fact, *_type_of(fact))
    writer.add_file_type(FILE_TYPES[wanted])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    kinds: Counter[str] = Counter()
    wider = []
    for name, value in tensors:
        kind = type_of_tensor(name, value.shape, wanted)
        kinds[kind] += 1
        if kind == "f16" and wanted.startswith("q"):
            wider.append(name)
        if kind == "f16" and np.abs(value).max() > np.finfo(np.float16).max:
            raise ModelError(f"{name}: holds {np.abs(value).max():.3g}, beyond float16; write f32")
        number = gguf.GGMLQuantizationType[kind.upper()]
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(value), number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"tensors": dict(sorted(kinds.items())), "wider": wider}


def type_of_tensor(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """The type of one tensor [..., row]: vectors stay exact, and blocks want rows that are multiples of 32."""
    if len(shape) < 2 or name.endswith(_EXACT):
        return "f32"
    if not wanted.startswith("q"):
        return wanted
    if shape[-1] % BLOCK:
        return "f16"
    return "q8_0" if name in _ENDS else wanted


def _type_of(value: Fact) -> tuple[Any, ...]:
    from gguf import GGUFValueType as Kind

    kinds = {bool: Kind.BOOL, int: Kind.UINT32, float: Kind.FLOAT32, str: Kind.STRING}
    if isinstance(value, list):
        items = kinds[type(value[0])] if value else Kind.STRING
        return Kind.ARRAY, Kind.INT32 if items is Kind.UINT32 else items
    return (kinds[type(value)],)
