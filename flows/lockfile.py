"""dvc.lock, of which one model's builds need a small part: YAML takes a second a megabyte to read, and a thousand models fill 36."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

#: The first line that DVC writes; other schemas are read whole.
HEAD = "schema: '2.0'"
#: What stands before the name of a stage.
STAGE = re.compile(r"^  (?! )", re.MULTILINE)
#: How a stage begins. YAML writes a long name as `? name`, and what belongs to it as `: cmd: ...`.
NAME = re.compile(r"(?![?:] )\S+:\n")


def text_of_stages(path: Path, wanted: Callable[[str], bool]) -> str:
    """The record with those stages alone whose names are wanted; all of it where it is not as DVC writes it.

    DVC writes each stage's name two blanks deep, and all that is in it deeper; a name of more than 120 letters otherwise. Raises OSError and
    UnicodeDecodeError.
    """
    text = path.read_text(encoding="utf-8")
    head, _, stages = text.partition("\nstages:\n")
    if head != HEAD or re.search(r"^\S", stages, re.MULTILINE):
        return text
    every = STAGE.split(stages)[1:]
    if not all(NAME.match(block) for block in every):
        return text
    blocks = [block for block in every if wanted(_name(block))]
    return "".join([f"{head}\nstages:\n", *(f"  {block}" for block in blocks)]) if blocks else f"{head}\n"


def _name(block: str) -> str:
    return block.partition("\n")[0].rstrip(":").strip("'\"")
