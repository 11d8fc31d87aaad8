"""Where the teacher of a model that answers token by token comes from."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipelines.config.base import NAME_PATTERN, Section
from pipelines.config.training import Training

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Size = int | float | bool | str | None


class TrustedCode(Section):
    """Permission to run a checkpoint's own code: these files with these digests, and nothing else."""

    files: dict[str, Sha256] = Field(
        min_length=1, description="Each Python file of the checkpoint's folder with its sha256."
    )

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if PurePosixPath(name).name != name or not name.endswith(".py"):
                raise ValueError(f"{name!r}: give the names of Python files of the checkpoint's folder")
        return files


class FreshTokenizer(Section):
    """A tokenizer trained on the training text."""

    kind: Literal["byte_bpe", "unigram"] = Field(
        description="byte_bpe: GPT-2's kind, loses no character; unigram: T5's kind."
    )
    vocab_size: int = Field(ge=260, le=1 << 18, description="Tokens at most.")


class FreshModel(Section):
    """A model of fresh weights, with a tokenizer trained on the training text. `place` is where it stands in the recipe."""

    place: ClassVar[str]
    architecture: str = Field(pattern=f"^{NAME_PATTERN}$", description="transformers' name of it: llama, gpt2, t5 ...")
    sizes: dict[str, Size] = Field(
        description="Keys of the architecture's config; those of the vocabulary are filled in."
    )
    tokenizer: FreshTokenizer = Field(description="The tokenizer, trained on the training text.")


class FreshTeacher(FreshModel):
    """A teacher trained from fresh weights, for domains of which no checkpoint knows enough."""

    place: ClassVar[str] = "teach"
    mode: Literal["scratch"] = Field(description="Fresh weights and a tokenizer of the domain's own.")
    training: Training = Field(description="The loop's settings.")


class TunedTeacher(Section):
    """A pretrained model that learns the task."""

    mode: Literal["finetune"] = Field(description="Fine-tune a pretrained model.")
    source: str = Field(
        min_length=1,
        description="`package:NAME/FOLDER` of an installed package, `hub:ORG/NAME@REVISION`, `registry:URL#NAME@VERSION`, or a local folder.",
    )
    sha256: Sha256 = Field(description="Digest of the source's model.safetensors; anything else is refused.")
    trust_remote_code: TrustedCode | None = Field(
        description="The checkpoint's own code that may run; null: none may, and a checkpoint that needs some is refused."
    )
    training: Training = Field(description="The loop's settings.")


class ReadyTeacher(Section):
    """A model that is taken as it is."""

    mode: Literal["ready"] = Field(description="Take the model as it is.")
    source: str = Field(min_length=1, description="As for `finetune`.")
    sha256: Sha256 = Field(description="As for `finetune`.")
    trust_remote_code: TrustedCode | None = Field(description="As for `finetune`.")
