"""A recipe's section for the machine on which the model is to run, and where its times are therefore taken."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator
from slm_registry.runtime.machine import INSTRUCTIONS

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
    instructions: list[str] = Field(
        description="Instructions that its processor must have, as `slm-registry measure --machine` names them there; they decide which quantization is fast. []: whatever it has.",
    )
    timeout_seconds: float = Field(
        gt=0,
        le=86_400,
        description="Seconds that a handful of models may take there, their transfer included; then the target counts as gone.",
    )

    @field_validator("instructions")
    @classmethod
    def _known(cls, instructions: list[str]) -> list[str]:
        known = list(dict.fromkeys(INSTRUCTIONS.values()))
        if unknown := [name for name in instructions if name not in known]:
            raise ValueError(f"{unknown[0]!r} is not among {', '.join(known)}")
        return instructions

    @model_validator(mode="after")
    def _one_machine(self) -> Target:
        if (self.command is None) != (self.python is None):
            raise ValueError(
                "command and python name another machine together; give both, or null for both: this machine"
            )
        return self
