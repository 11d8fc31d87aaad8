"""What onnxruntime-genai calls the architectures whose exported graphs it runs, as data."""

from __future__ import annotations

from typing import Any

from pipelines.errors import ModelError

#: Architecture in transformers -> `model.type` in genai_config.json.
GENAI: dict[str, str] = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3_text",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "phi": "phi",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


def genai_type(config: dict[str, Any]) -> str:
    """onnxruntime-genai's name for a config.json's architecture. Raises ModelError where it has none."""
    kind = str(config.get("model_type"))
    if kind not in GENAI:
        raise ModelError(f"architecture {kind!r}: onnxruntime-genai does not run it; choose one of {', '.join(GENAI)}")
    return GENAI[kind]
