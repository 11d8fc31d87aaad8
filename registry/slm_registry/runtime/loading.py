"""From a bundle's folder to the kind of model that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slm_registry.bundles.facts import TASKS, task_of
from slm_registry.errors import UsageError
from slm_registry.runtime.model import DEFAULT_BATCH, Model
from slm_registry.runtime.parts import read_json
from slm_registry.runtime.text_classification import TextClassifier
from slm_registry.runtime.text_generation import TextGenerator
from slm_registry.runtime.text_to_text import TextToText
from slm_registry.runtime.token_classification import TokenClassifier

_RUNTIMES: Mapping[str, type[Model]] = {
    kind.task: kind for kind in (TextClassifier, TokenClassifier, TextGenerator, TextToText)
}


def load_folder(
    folder: Path, *, threads: int = 1, max_length: int | None = None, batch_size: int = DEFAULT_BATCH
) -> Model:
    """A ready model for what the folder's config.json says it is. Raises UsageError where nothing runs it."""
    architectures = read_json(folder / "config.json").get("architectures")
    runtime = _RUNTIMES.get(task_of(architectures) or "")
    if runtime is None:
        known = ", ".join(f"...{ending}" for ending, task in TASKS.items() if task in _RUNTIMES)
        raise UsageError(f"{folder / 'config.json'}: architectures is {architectures!r}; this release runs {known}")
    return runtime.from_folder(folder, threads=threads, max_length=max_length, batch_size=batch_size)
