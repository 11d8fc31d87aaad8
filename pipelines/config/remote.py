"""A recipe's section for a teacher that is only reachable by API."""

from __future__ import annotations

import ipaddress
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pipelines.config.base import Section
from pipelines.config.teachers import FreshTeacher, TunedTeacher

#: What takes the row's place in a prompt file.
PLACEHOLDER = "{text}"


class Sampling(Section):
    """How the endpoint's model writes."""

    temperature: float = Field(ge=0, le=10, description="0: the likeliest token each time.")
    top_p: float = Field(gt=0, le=1, description="Mass of the likeliest tokens that are drawn from.")
    max_tokens: int = Field(ge=1, description="Tokens of an answer at most; also what its cost is estimated from.")
    answers: int = Field(ge=1, le=1000, description="Answers a row, each a request of its own.")

    @model_validator(mode="after")
    def _draws_differ(self) -> Sampling:
        if self.answers > 1 and self.temperature == 0:
            raise ValueError(
                f"answers is {self.answers}, but at temperature 0 all of a row's would be the same; "
                "raise the temperature or ask for one"
            )
        return self


class Price(Section):
    """What the endpoint charges, in whatever currency max_cost is meant in."""

    input: float = Field(ge=0, allow_inf_nan=False, description="A million tokens of prompts.")
    output: float = Field(ge=0, allow_inf_nan=False, description="A million tokens of answers.")


class Retries(Section):
    """How long a request that met a busy, broken or silent endpoint is tried again."""

    tries: int = Field(ge=1, le=100, description="Tries a request at most.")
    seconds: float = Field(
        ge=0, le=86_400, description="Seconds after its first failure in which it may be tried again."
    )


class ApiTeacher(Section):
    """A model behind an OpenAI-compatible endpoint. It has no weights here: a learner takes its answers in, and stands in for it."""

    mode: Literal["api"] = Field(description="Ask an OpenAI-compatible endpoint (text-generation, text-to-text).")
    url: str = Field(description="The endpoint's base, `https://host/v1`; without credentials or a query.")
    endpoint: Literal["chat", "completions"] = Field(
        description="chat: the prompt as a user's message to url/chat/completions; completions: as it is to url/completions."
    )
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    served_as: str | None = Field(
        min_length=1, description="The name that its replies must bear; null: any, and the record counts them."
    )
    prompt_file: str = Field(
        min_length=1, description="A UTF-8 file of the project with `{text}` once, where the row's text goes."
    )
    prompt_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(
        description="Its digest; an edited prompt is another teacher."
    )
    sampling: Sampling = Field(description="How the model writes.")
    empty: Literal["drop", "fail"] = Field(description="What an empty answer does.")
    cut: Literal["drop", "keep", "fail"] = Field(
        description="What an answer does that max_tokens or a filter cut short."
    )
    price: Price = Field(description="What the endpoint charges.")
    max_cost: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Most that the answers of this model, prompt and sampling may cost, all runs together.",
    )
    requests_per_minute: float = Field(gt=0, le=1e6, description="Requests begun a minute at most, retries included.")
    parallel: int = Field(ge=1, le=256, description="Requests under way at once at most.")
    timeout_seconds: float = Field(gt=0, le=3600, description="Seconds a request may take.")
    retries: Retries = Field(description="How long a failed request is tried again.")
    key_variable: str | None = Field(
        pattern="^[A-Z_][A-Z0-9_]*$",
        description="NAME of the environment variable that holds the key; null: the endpoint wants none.",
    )
    learner: FreshTeacher | TunedTeacher = Field(
        discriminator="mode",
        description="The local model that learns its answers, and whose logits the student then learns from.",
    )
    store: str = Field(
        min_length=1,
        description="Folder that keeps every answer, outside `build`: what is there is not paid for again.",
    )

    @field_validator("url")
    @classmethod
    def _plain_base(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host = parts.hostname if parts.port is None or parts.port else None
        except ValueError:
            host = None
        if host is None or parts.scheme not in ("http", "https"):
            raise ValueError("not the base of an endpoint; write it as https://host/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("holds credentials, a query or a fragment; the key belongs into key_variable")
        return url.rstrip("/")

    @field_validator("prompt_file", "store")
    @classmethod
    def _of_the_project(cls, path: str) -> str:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError("give a path inside the project, relative to its root")
        return path

    @field_validator("store")
    @classmethod
    def _outlives_a_build(cls, path: str) -> str:
        if PurePosixPath(path).parts[:1] in ((), ("build",)):
            raise ValueError("lies where builds are removed; name a folder outside `build`, such as `answers`")
        return path

    @model_validator(mode="after")
    def _no_key_in_the_clear(self) -> ApiTeacher:
        parts = urlsplit(self.url)
        if self.key_variable is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError("url is http, which would send the key in the clear; use https, or key_variable: null")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
