"""What a model is for, and what every stage shares."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipelines.config.base import Section


class Task(Section):
    """What the model is for, and what every stage shares."""

    type: Literal["text-classification", "token-classification", "text-generation", "text-to-text"] = Field(
        description="Task; decides the model family (families/) and which keys the other sections have. Registry, card and hub say `text2text-generation` for text-to-text."
    )
    seed: int = Field(
        ge=0, lt=2**31, description="Seed of every random choice: splits, order of batches, fresh weights."
    )
    max_length: int = Field(
        ge=8,
        le=1 << 17,
        description="Longest text in tokens; what is longer is cut at this length, or goes on in the next block (text-generation).",
    )
    threads: int = Field(
        ge=1,
        le=64,
        description="CPU threads for training and labelling. Part of the record: it changes the order of sums.",
    )


class TextToTextTask(Task):
    """A task whose answers are texts of their own."""

    max_target_length: int = Field(ge=2, le=1 << 15, description="Longest answer in tokens; what is longer is cut.")


def task_of(recorded: dict[str, Any]) -> Task:
    """The task that a bundle's lineage records."""
    kind = TextToTextTask if "max_target_length" in recorded else Task
    return kind.model_validate(recorded)
