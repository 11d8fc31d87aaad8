"""A recipe, whatever its task, and the file that holds them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError

from pipelines.config.base import NAME_PATTERN, Section, holds_secret
from pipelines.config.classification import ClassificationRecipe
from pipelines.config.sequences import (
    SequenceRecipe,
    TextGenerationRecipe,
    TextToTextRecipe,
    TokenClassificationRecipe,
)
from pipelines.errors import RecipeError

#: Task -> the recipe that it takes.
RECIPES: dict[str, type[Section]] = {
    "text-classification": ClassificationRecipe,
    "token-classification": TokenClassificationRecipe,
    "text-generation": TextGenerationRecipe,
    "text-to-text": TextToTextRecipe,
}

#: The sections, which every kind of recipe has.
SECTIONS = tuple(ClassificationRecipe.model_fields)

Recipe = ClassificationRecipe | SequenceRecipe

#: Keys whose wrong value may be a secret that was written where its name belongs; messages do not repeat it.
SECRETIVE = re.compile(r"(^|_)(key|token|secret|password|authorization|headers)(_variable)?$|^url$")


def _task_type(block: Any) -> str:
    """The task of a block as it stands in the file; what is unknown is left to the task's own check."""
    task = block.get("task") if isinstance(block, dict) else getattr(block, "task", None)
    kind = task.get("type") if isinstance(task, dict) else getattr(task, "type", None)
    return kind if kind in RECIPES else "text-classification"


AnyRecipe = Annotated[
    Annotated[ClassificationRecipe, Tag("text-classification")]
    | Annotated[TokenClassificationRecipe, Tag("token-classification")]
    | Annotated[TextGenerationRecipe, Tag("text-generation")]
    | Annotated[TextToTextRecipe, Tag("text-to-text")],
    Discriminator(_task_type),
]


class Params(Section):
    """The whole of params.yaml."""

    models: dict[Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")], AnyRecipe] = Field(
        description="One recipe a model."
    )


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises RecipeError naming every bad key, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(
            f"{path}: no such file; run from the project's folder, or write a recipe with `python -m flows new`"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """Check what is, or is to be, the text of a params.yaml. Raises as load_params, naming `path`."""
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(path, item) for item in error.errors())) from error


def load_recipe(path: Path, model: str) -> Recipe:
    """The recipe of one model; RecipeError where it is missing or wrong."""
    params = load_params(path)
    if model not in params.models:
        raise RecipeError(
            f"{path}: no model {model!r} under `models`; there are: {', '.join(sorted(params.models)) or 'none'}"
        )
    return params.models[model]


def _explain(path: Path, item: Any) -> str:
    """One line for one pydantic finding: key, value, what is allowed."""
    # The task stands in the path of the error, as the name of the union's branch, and not in the file's.
    key = ".".join(str(part) for place, part in enumerate(item["loc"]) if not (place == 2 and part in RECIPES))
    message = item["msg"].removeprefix("Value error, ")
    given = item["input"]
    secretive = SECRETIVE.search(key.rpartition(".")[2]) or (isinstance(given, str) and holds_secret(given))
    if item["type"] == "extra_forbidden":
        return f"{path}: {key}: unknown key (value {'not shown' if secretive else repr(item['input'])}); remove it, or see docs/recipe.md for the keys there are"
    if item["type"] == "missing":
        return f"{path}: {key}: missing; every value stands in params.yaml, see docs/recipe.md"
    value = given if isinstance(given, str | int | float | bool | None) else type(given).__name__
    return f"{path}: {key}: {'(value not shown)' if secretive else repr(value)}: {message}"
