"""A new text for params.yaml: checked first, then in its place whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.config import parse_params


def replace_params(params: Path, text: str) -> None:
    """Put a text in the place of params.yaml, with the file's mode. RecipeError where a recipe of it is wrong; the file is as it was then."""
    parse_params(text, params)
    draft = params.with_name(f"{params.name}.partial")
    try:
        draft.write_bytes(text.encode("utf-8"))
        shutil.copymode(params, draft)
        draft.replace(params)
    finally:
        draft.unlink(missing_ok=True)
