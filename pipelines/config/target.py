"""A recipe's section for the machine on which the model is to run, and where its times are therefore taken."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipelines.config.base import Section

#: No shell takes any of these for something else, so that the words mean the same with a shell in between and without.
_WORD = r"^[A-Za-z0-9_@%+=:,./-]+$"


class Target(Section):
    """Where times are measured: here, or where a command leads."""

    threads: int = Field(ge=1, le=1024, description="Threads of one call while timing.")
    command: list[Annotated[str, Field(min_length=1)]] | None = Field(
        min_length=1,
        description="What runs a command line there and passes standard input on, such as `[ssh, -o, BatchMode=yes, pi@board]`; null: this machine.",
    )
    python: str | None = Field(
        pattern=_WORD, description="The interpreter there that has slm_registry installed; null: this machine's own."
    )
    timeout_seconds: float = Field(
        gt=0,
        le=86_400,
        description="Seconds that a handful of models may take there, their transfer included; then the target counts as gone.",
    )

    @model_validator(mode="after")
    def _one_machine(self) -> Target:
        if (self.command is None) != (self.python is None):
            raise ValueError(
                "command and python name another machine together; give both, or null for both: this machine"
            )
        return self
