"""A recipe's sections for a model by budget: what is searched, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.config.base import Section
from pipelines.config.quantizing import Form
from pipelines.config.target import Target


class Search(Section):
    """The search over parts of the elastic student and quantizations; all of it looks at validation data alone."""

    technique: Literal["search"] = Field(description="Estimate, search, measure the best.")
    quantizations: dict[Annotated[str, Field(pattern="^[a-z0-9_-]{1,32}$")], Form] = Field(
        min_length=1, description="What each part is tried in, by a name of your own; each as `quantize` would say it."
    )
    parity: float = Field(gt=0, le=0.1, description="As quantize.parity.")
    trials: int = Field(ge=1, le=100_000, description="Parts and quantizations that the search looks at (Optuna).")
    points: int = Field(ge=1, le=1000, description="The best of them, exported and measured.")
    target: Target = Field(description="Where the points are timed.")
    latency_rounds: int = Field(ge=20, description="Timed single texts a point, in turns.")
    noise: float = Field(
        gt=0,
        le=1,
        description="A point is steady where the 95 % interval of its median time is this share of it, to either side.",
    )
    repeats: int = Field(
        ge=0, le=10, description="Times that what is not steady is timed again, twice as long each time."
    )
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap.")


class Budget(Section):
    """What the model may cost. Time and loss must hold with confidence, by the pessimistic end of their 95 % intervals."""

    max_bytes: int | None = Field(ge=1, description="Largest download in bytes; null: any.")
    max_p50_ms: float | None = Field(gt=0, description="Largest median time of a text at batch 1; null: any.")
    min_texts_per_s: float | None = Field(gt=0, description="Least throughput at batch 32; null: any.")
    max_memory_bytes: int | None = Field(ge=1, description="Largest peak memory of a process that answers; null: any.")
    max_accuracy_loss: float | None = Field(
        gt=0, le=100, description="Largest loss to the teacher in points of accuracy; null: any."
    )
    cheapest: Literal["bytes", "p50_ms", "accuracy_loss"] = Field(
        description="Of what holds them all, the least of this is built."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Budget:
        bounds = {name: value for name, value in self.model_dump().items() if name != "cheapest"}
        if all(value is None for value in bounds.values()):
            raise ValueError(f"every bound is null; set at least one of {', '.join(bounds)}")
        return self
