"""What every section of a recipe has in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,127}"

Action = Literal["fail", "quarantine"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]


class Section(BaseModel):
    """A block of the recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoTechnique(Section):
    """Identity: the stage copies its input."""

    technique: Literal["none"] = Field(description="Copy the input.")
