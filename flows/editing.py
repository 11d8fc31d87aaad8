"""A new text for params.yaml: checked first, then in its place whole or not at all."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import parse_params
from pipelines.errors import RecipeError


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


def with_values(params: Path, text: str, model: str, section: str, wanted: Mapping[str, Any]) -> str:
    """The text of params.yaml with other values in one section of a model; comments and anchors stay.

    Raises RecipeError where another model shares the section: it would change too.
    """
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = editor.load(text)
    document["models"][model][section].update(wanted)
    out = io.StringIO()
    editor.dump(document, out)
    after = out.getvalue()
    shared = [name for name, block in _models(after).items() if name != model and block != _models(text)[name]]
    if shared:
        raise RecipeError(
            f"{params}: models.{model}.{section} is shared with {', '.join(shared)} by a YAML alias; write it out in models.{model}"
        )
    return after


def _models(text: str) -> dict[str, Any]:
    models: dict[str, Any] = yaml.safe_load(text)["models"]
    return models
