"""A recipe's sections for a model by budget: what is searched, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.config.base import Section
from pipelines.config.quantizing import Form, TokenForm
from pipelines.config.target import Target

FormName = Annotated[str, Field(pattern="^[a-z0-9_-]{1,32}$")]


class Measurement(Section):
    """How a search goes and how its points are measured, whatever the task."""

    technique: Literal["search"] = Field(description="Estimate, search, measure the best.")
    parity: float = Field(gt=0, le=0.1, description="As quantize.parity.")
    trials: int = Field(ge=1, le=100_000, description="Parts and quantizations that the search looks at (Optuna).")
    points: int = Field(ge=1, le=1000, description="The best of them, exported and measured.")
    target: Target = Field(description="Where the points are timed.")
    latency_rounds: int = Field(ge=20, description="Timed single texts a point, in turns.")
    noise: float = Field(
        gt=0,
        le=1,
        description="A point's time is steady where half the 95 % interval of its median is below this share of it.",
    )
    repeats: int = Field(
        ge=0, le=10, description="How often points that are not steady are timed again, twice as long each time."
    )
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap.")


class Search(Measurement):
    """The search over parts of the elastic student and quantizations; all of it looks at validation data alone."""

    quantizations: dict[FormName, Form] = Field(
        min_length=1, description="What each part is tried in, by a name of your own; each as `quantize` would say it."
    )


class TokenSearch(Measurement):
    """The same over parts of an elastic tagger."""

    quantizations: dict[FormName, TokenForm] = Field(
        min_length=1, description="What each part is tried in, by a name of your own; each as `quantize` would say it."
    )


class WriterSearch(TokenSearch):
    """The same over parts of an elastic model that writes; its times are of a token, the reading of the prompt shared out."""

    prompt_tokens: int = Field(ge=1, description="Tokens of a validation text that a timed text starts from.")
    new_tokens: int = Field(ge=1, description="Tokens written after them.")


class Costs(Section):
    """What a model may cost, whatever its task. Time and loss must hold with confidence, by the pessimistic end of their 95 % intervals."""

    max_bytes: int | None = Field(ge=1, description="Largest download in bytes; null: any.")
    max_p50_ms: float | None = Field(gt=0, description="Largest median time of a text at batch 1; null: any.")
    max_memory_bytes: int | None = Field(ge=1, description="Largest peak memory of a process that answers; null: any.")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Costs:
        bounds = {name: value for name, value in self.model_dump().items() if name != "cheapest"}
        if all(value is None for value in bounds.values()):
            raise ValueError(f"every bound is null; set at least one of {', '.join(bounds)}")
        return self


class Budget(Costs):
    """What the model may cost. Time and loss must hold with confidence, by the pessimistic end of their 95 % intervals."""

    min_texts_per_s: float | None = Field(gt=0, description="Least throughput at batch 32; null: any.")
    max_accuracy_loss: float | None = Field(
        gt=0, le=100, description="Largest loss to the teacher in points of accuracy; null: any."
    )
    cheapest: Literal["bytes", "p50_ms", "accuracy_loss"] = Field(
        description="Of what holds them all, the least of this is built."
    )


class TaggerBudget(Costs):
    """What a tagger may cost; as Budget."""

    min_texts_per_s: float | None = Field(gt=0, description="Least throughput at batch 32; null: any.")
    max_span_f1_loss: float | None = Field(
        gt=0, le=100, description="Largest loss to the teacher in points of span F1; null: any."
    )
    cheapest: Literal["bytes", "p50_ms", "span_f1_loss"] = Field(
        description="Of what holds them all, the least of this is built."
    )


class WriterBudget(Costs):
    """What a model that writes may cost; as Budget."""

    max_p50_ms: float | None = Field(gt=0, description="Largest median time of a token at batch 1; null: any.")
    min_tokens_per_s: float | None = Field(gt=0, description="Least throughput at batch 32; null: any.")
    max_bits_per_byte_loss: float | None = Field(
        gt=0, description="Largest loss to the teacher in bits a byte; null: any."
    )
    cheapest: Literal["bytes", "p50_ms", "bits_per_byte_loss"] = Field(
        description="Of what holds them all, the least of this is built."
    )


#: What any task's recipe may say.
AnySearch = Search | TokenSearch | WriterSearch
AnyBudget = Budget | TaggerBudget | WriterBudget
