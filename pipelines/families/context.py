"""How many tokens a model can read at once, held against what a recipe wants of it."""

from __future__ import annotations

from typing import Any

from pipelines.config import Task, TextToTextTask
from pipelines.errors import ModelError


def check_context(model: Any, task: Task, what: str) -> None:
    """Raise ModelError where the recipe's texts may be longer than a model's context; `what` names the model in the message.

    Beyond it a table of positions has no row, and rotated positions are such as the model never saw.
    """
    limit = context_of(model)
    wanted = {"max_length": task.max_length}
    if isinstance(task, TextToTextTask):
        wanted["max_target_length"] = task.max_target_length
    for key, length in wanted.items():
        if limit is not None and length > limit:
            raise ModelError(
                f"task.{key} is {length}, but {what} reads at most {limit} tokens; lower task.{key}, or take another model"
            )


def context_of(model: Any) -> int | None:
    """Tokens that a model reads at most; None where nothing bounds them (relative positions, as T5's and DeBERTa's)."""
    config = model.config.get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is None or getattr(config, "position_biased_input", True) is False:
        return None
    # RoBERTa counts positions from the one after padding's.
    tables = [part for name, part in model.named_modules() if name.endswith("embeddings.position_embeddings")]
    offset = next((table.padding_idx + 1 for table in tables if table.padding_idx is not None), 0)
    return limit - offset
