"""Folders of models that write, for what is made of them apart from the stages."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle import LINEAGE, Bundle, read_lineage, require_files
from pipelines.config import Task, task_of
from pipelines.errors import ModelError
from pipelines.families import sequence_family_of


def generation_task(folder: Path) -> Task:
    """The task of a bundle. Raises ModelError unless it is text-generation."""
    require_files(folder, LINEAGE)
    task = task_of(read_lineage(folder)["task"])
    if task.type != "text-generation":
        raise ModelError(f"{folder}: a model for {task.type}; only models for text-generation can be used here")
    return task


def load_generator(folder: Path) -> Bundle:
    """A text generator in torch. Raises ModelError."""
    return sequence_family_of(generation_task(folder)).load(folder)
