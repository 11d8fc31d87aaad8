"""What every section of a recipe has in common."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,127}"

Action = Literal["fail", "quarantine"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]


#: Keys of an address's query whose values let in whoever has them.
SECRET_KEYS = frozenset(
    {"access_token", "api_key", "apikey", "sig", "signature", "token", "x-amz-signature", "x-goog-signature"}
)


def holds_secret(address: str) -> bool:
    """Whether a URL has a password, a token or a signature in it; what is no URL has none."""
    try:
        parts = urlsplit(address)
        return bool(parts.scheme) and (
            parts.password is not None or any(key.lower() in SECRET_KEYS for key, _ in parse_qsl(parts.query))
        )
    except ValueError:
        return False


class Section(BaseModel):
    """A block of the recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoTechnique(Section):
    """Identity: the stage copies its input."""

    technique: Literal["none"] = Field(description="Copy the input.")
