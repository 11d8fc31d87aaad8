"""A bundle in torch to one GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bundle import Bundle, sha256_of
from pipelines.errors import ModelError
from pipelines.families.llama_cpp import Facts, llama_cpp_form, metadata_of, tensors_of
from pipelines.gguf.vocabulary import vocabulary_facts
from pipelines.gguf.writing import write_gguf


def export_gguf(bundle: Bundle, out: Path, wanted: str) -> dict[str, Any]:
    """Write the bundle as `wanted` (f32, f16, q8_0 or q4_0); what is to be known of the file.

    The bytes depend on weights, config and tokenizer alone. Raises ModelError where llama.cpp would compute something else.
    """
    form, facts = llama_cpp_form(bundle.model.config), metadata_of(bundle.model.config)
    rows = bundle.model.get_input_embeddings().weight.shape[0]
    words = vocabulary_facts(bundle.tokenizer, rows)
    template = {key: words.pop(key) for key in ("chat_template",) if key in words}
    written: Facts = {f"{form.arch}.{key}": value for key, value in facts.items()}
    written |= {f"tokenizer.ggml.{key}": value for key, value in words.items()}
    written |= {f"tokenizer.{key}": value for key, value in template.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    found = write_gguf(partial, form.arch, written, _named(bundle.model, form.arch), wanted)
    partial.replace(out)
    return {
        "type": wanted,
        "architecture": form.arch,
        "context_length": facts["context_length"],
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
    } | found


def _named(model: Any, arch: str) -> Iterator[tuple[str, np.ndarray]]:
    """float32 tensors under llama.cpp's names. Raises ModelError for one that its graph has no place for."""
    import gguf

    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    for name, value in tensors_of(model):
        known = names.get_name(name, (".weight", ".bias"))
        if known is None:
            raise ModelError(
                f"{name}: llama.cpp's {arch} has no place for this tensor; no GGUF of this model would be whole"
            )
        yield known, value.detach().float().numpy()
