"""What is asked: a prompt file with a row's text in it, and the digest under which its answer is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import ApiTeacher
from pipelines.config.remote import PLACEHOLDER
from pipelines.errors import RecipeError

Identity = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """The `number`-th answer that is wanted for the text of one row. `key` is what it is stored under."""

    key: str
    row: int
    text_sha256: str
    number: int
    prompt: str


def sha256_of_text(text: str) -> str:
    """Hex digest of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def compact_json(value: Any) -> str:
    """The one form of a value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity_of(teacher: ApiTeacher) -> Identity:
    """What makes an answer this teacher's. The URL is left out: the same model may be served elsewhere."""
    return {
        "model": teacher.model,
        "endpoint": teacher.endpoint,
        "prompt_sha256": teacher.prompt_sha256,
        "temperature": teacher.sampling.temperature,
        "top_p": teacher.sampling.top_p,
        "max_tokens": teacher.sampling.max_tokens,
    }


def read_prompt(teacher: ApiTeacher, root: Path) -> str:
    """The prompt file's text. Raises RecipeError where it is missing, another one, or has no single placeholder."""
    path = root / teacher.prompt_file
    try:
        raw = path.read_bytes()
        prompt = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"teach.prompt_file: {path} cannot be read: {error}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != teacher.prompt_sha256:
        raise RecipeError(
            f"teach.prompt_sha256: {path} has sha256 {found}, the recipe says {teacher.prompt_sha256}; "
            "correct the recipe, or restore the file (its answers belong to the text it had)"
        )
    if prompt.count(PLACEHOLDER) != 1:
        raise RecipeError(
            f"teach.prompt_file: {path} holds {PLACEHOLDER} {prompt.count(PLACEHOLDER)} times; "
            "write it once, where the row's text goes"
        )
    return prompt


def questions(teacher: ApiTeacher, prompt: str, texts: Sequence[str]) -> list[Question]:
    """Every answer that the recipe wants: `sampling.answers` for each distinct text, in the order of the rows."""
    identity, first = identity_of(teacher), dict[str, int]()
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    wanted = []
    for text, row in first.items():
        digest, filled = sha256_of_text(text), prompt.replace(PLACEHOLDER, text)
        for number in range(teacher.sampling.answers):
            key = sha256_of_text(compact_json([identity, digest, number]))
            wanted.append(Question(key, row, digest, number, filled))
    return wanted
