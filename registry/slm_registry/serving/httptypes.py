"""What the prediction server answers, as its OpenAPI page describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Labelled:
    """The most probable label of a text."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class PredictResponse:
    """One prediction a text, in their order, and the version that made them all."""

    model: str
    version: str
    digest: str
    predictions: list[Labelled]


@dataclass(frozen=True, slots=True)
class Spotted:
    """Words of one kind: `text`, which is from `start` to `end` of what was sent, in Unicode characters (not bytes, not
    UTF-16 units), and the mean probability of its words' tags."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class SpansResponse:
    """The spans of each text, in their order, and the version that found them all."""

    model: str
    version: str
    digest: str
    predictions: list[list[Spotted]]


@dataclass(frozen=True, slots=True)
class GenerateResponse:
    """What was written, why it ended, how many tokens it took, and the version that wrote it."""

    model: str
    version: str
    digest: str
    text: str
    finish_reason: Literal["end", "stop", "length"]
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """What new requests are answered by, and when its reference was last looked up (UTC)."""

    ref: str
    model: str
    version: str
    digest: str
    as_of: str


@dataclass(frozen=True, slots=True)
class HealthResponse:
    """`ok`, `degraded` (it predicts, but see `problem`) or `draining` (with status 503)."""

    status: Literal["ok", "degraded", "draining"]
    model: str
    version: str
    as_of: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why it was refused."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What every refusal looks like."""

    error: Problem
