"""From a bundle's folder to the kind of model that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slm_registry.errors import UsageError
from slm_registry.runtime.model import DEFAULT_BATCH
from slm_registry.runtime.parts import read_json
from slm_registry.runtime.text_classification import TextClassifier

# What a task, as the model's architecture names it after "For", is run by.
_RUNTIMES: Mapping[str, type[TextClassifier]] = {
    "SequenceClassification": TextClassifier,
}


def load_folder(
    folder: Path, *, threads: int = 1, max_length: int | None = None, batch_size: int = DEFAULT_BATCH
) -> TextClassifier:
    """A ready model for what the folder's config.json says it is. Raises UsageError where nothing runs it."""
    architectures = read_json(folder / "config.json").get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    runtime = _RUNTIMES.get(str(named).rpartition("For")[2])
    if runtime is None:
        known = ", ".join(f"...For{task}" for task in _RUNTIMES)
        raise UsageError(f"{folder / 'config.json'}: architectures is {architectures!r}; this release runs {known}")
    return runtime.from_folder(folder, threads=threads, max_length=max_length, batch_size=batch_size)
