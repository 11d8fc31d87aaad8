"""A recipe's sections for data as a lever: texts beside the training text that the teacher labels, and how their gain is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.config.base import Section

Copies = Annotated[int, Field(ge=0, le=100)]


class Writer(Section):
    """A generative model that goes on from the heads of texts."""

    source: str = Field(min_length=1, description="A causal language model, named as teach.source.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="As teach.sha256.")
    copies: int = Field(ge=1, le=100, description="Texts that it writes a given text.")
    prompt_tokens: int = Field(ge=1, le=1024, description="Tokens of a text that it goes on from.")
    max_new_tokens: int = Field(ge=1, le=1024, description="Tokens that it writes at most; its first line is kept.")
    temperature: float = Field(gt=0, le=10, description="Of its sampling.")


class Levers(Section):
    """Synthetic texts, so many a training or unlabelled text; the teacher says what they mean. 0 makes none."""

    cut_mix: Copies = Field(description="The head of one text with the tail of another.")
    dropped_words: Copies = Field(description="A fifth of the words left out.")
    typos: Copies = Field(description="Letters swapped in a fifth of the words.")
    written: Writer | None = Field(description="Texts that a generative model writes; null: none.")


class Trial(Section):
    """Before training, a small student learns with and without each lever; what does not help validation data is left out."""

    epochs: int = Field(ge=1, le=100, description="Passes of each trial over twice the given texts.")
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap of each gain.")
