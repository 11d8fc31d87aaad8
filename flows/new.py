"""`python -m flows new`: look at a data set and append a complete, commented recipe to params.yaml."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from flows.budget import parse_budget
from flows.editing import replace_params
from flows.fitting import SECOND_KEYS, by_budget, recipe_for, tokens_by_budget
from flows.teachers import look_at, taught_by
from pipelines.config import NAME_PATTERN, RECIPES, ClassificationRecipe, load_params
from pipelines.data.profile import QUANTILES, Profile, profile
from pipelines.errors import DataError, RecipeError
from pipelines.exploring.yardsticks import YARDSTICKS
from pipelines.sources import is_folder

TEMPLATES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Columns:
    """The columns as far as they are named; `others` are those of what is to be answered, by their key under `data`."""

    text: str | None
    others: Mapping[str, str | None]

    def second(self, task: str) -> str | None:
        """The other column that a task has; RecipeError where one is named that it has not."""
        key = SECOND_KEYS[task]
        strange = [other for other, name in self.others.items() if name is not None and other != key]
        if strange:
            there = f"use {_option(key)}" if key else "its texts are all that it needs"
            raise RecipeError(f"{_option(strange[0])}: a recipe of {task} has no such column; {there}")
        return self.others.get(key) if key else None


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def new_recipe(
    params: Path, name: str, data: Path, task: str, columns: Columns, teacher: str | None, budget: str | None
) -> int:
    """Append a recipe of a task for a data set; 0. A classifier's may name a teacher, and leave its shape to a budget.

    Raises RecipeError where params.yaml is at fault, the name is taken or invalid, a column is none of the task's or the budget none,
    DataError where the data cannot be read, ModelError where the teacher cannot be one.
    """
    second = columns.second(task)
    yardstick = YARDSTICKS.get(task)
    if budget is not None and yardstick is None:
        raise RecipeError(f"--budget: a recipe of {task} has none; a budget shapes {', '.join(YARDSTICKS)}")
    if teacher is not None and task != "text-classification":
        raise RecipeError(
            f"--teacher: only a text classifier's recipe is fitted to a teacher; make the one of {task} without, then name a checkpoint under `teach` (docs/recipe.md)"
        )
    bounds = None if budget is None or yardstick is None else parse_budget(budget, None, yardstick)
    if not re.fullmatch(NAME_PATTERN, name):
        raise RecipeError(
            f"{name!r}: no valid name; use lower-case letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    known = load_params(params).models
    if name in known:
        raise RecipeError(f"{params}: there is a model {name!r} already; choose another name, or edit its block")
    if not data.exists():
        raise DataError(f"{data}: no such file or folder")
    seen = profile(data, task, columns.text, second)
    values = recipe_for(seen, _template(task), source_of(data, params), os.cpu_count() or 1)
    sizes = None
    if teacher is not None:
        looked = look_at(teacher)
        values = taught_by(values, source_of(Path(teacher), params) if is_folder(teacher) else teacher, looked)
        sizes = looked.sizes
    if bounds is not None:
        sections = _template(f"by-budget/{task}")
        if task == "text-classification":
            values = by_budget(values, sections, bounds, sizes)
        else:
            values = tokens_by_budget(values, sections, bounds)
    recipe = RECIPES[task].model_validate(values)
    write_block(params, name, recipe)
    print(summary(params, name, seen, recipe))
    return 0


def _template(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def source_of(data: Path, params: Path) -> str:
    """A place as the recipe names it: relative to params.yaml where it lies below, else absolute."""
    root, place = params.absolute().parent, data.absolute()
    return (place.relative_to(root) if place.is_relative_to(root) else place).as_posix()


def write_block(params: Path, name: str, recipe: BaseModel) -> None:
    """Put a block at the end of `models`; every byte that was there stays. The file changes whole or not at all."""
    text = params.read_bytes().decode("utf-8")
    place, column = end_of_models(text)
    before, after = text[:place], text[place:]
    pad = " " * column
    block = "\n".join([f"{pad}{name}:", *block_lines(recipe, column + 2)]) + "\n"
    if before and not before.endswith("\n"):
        before += "\n"
    replace_params(params, before + block + after)


def end_of_models(text: str) -> tuple[int, int]:
    """Where a new block of `models` belongs, and its column.

    Raises RecipeError where `models` is not written as a block, one model a line.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = [key for key, _ in root.value]
    index = next(number for number, key in enumerate(keys) if key.value == "models")
    models = root.value[index][1]
    if not isinstance(models, yaml.MappingNode) or models.flow_style or not models.value:
        raise RecipeError("params.yaml: `models` must be written as a block with one model at least, not in braces")
    place = keys[index + 1].start_mark.index if index + 1 < len(keys) else len(text)
    return place, models.value[0][0].start_mark.column


def block_lines(section: BaseModel, indent: int) -> Iterator[str]:
    """A section as YAML, every key with the sentence that explains it in pipelines/config.py."""
    pad = " " * indent
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{pad}# {field.description}"
            yield f"{pad}{name}:"
            yield from block_lines(value, indent + 2)
        else:
            yield f"{pad}{name}: {_scalar(value)}  # {field.description}"


def _scalar(value: Any) -> str:
    """A value on one line, quoted where YAML wants it."""
    plain = _plain(value)
    line: str = yaml.safe_dump([plain], default_flow_style=True, width=math.inf, allow_unicode=True)
    return line.strip()[1:-1]


def _plain(value: Any) -> Any:
    """A value with the sections in it as mappings."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def summary(params: Path, name: str, seen: Profile, recipe: Any) -> str:
    """What was seen, what was chosen, what to do next."""
    longest = seen.lengths[QUANTILES.index(0.99)]
    answers = f"{len(seen.counts)} different ones" if seen.counts else "answers"
    second = f", {answers} in {seen.second_column!r}" if seen.second_column else ""
    chosen = f"max_length {recipe.task.max_length}, {recipe.teach.training.epochs} epochs of teaching"
    if isinstance(recipe, ClassificationRecipe):
        chosen += f", margin {recipe.gate.max_accuracy_loss} points"
    chosen += f"; of what holds the budget, the least {recipe.budget.cheapest}" if recipe.budget else ""
    if taught := recipe.teach.source if isinstance(recipe, ClassificationRecipe) else None:
        chosen += f"; taught by {taught} at {recipe.teach.training.learning_rate:g}"
    lines = [
        f"{seen.path}: {seen.rows} rows, text in {seen.text_column!r}{second}",
        f"  language {seen.language or 'unclear'}, 99 of 100 texts have at most {longest} characters, {seen.duplicate_share:.1%} duplicates",
        f"{params}: wrote {name}; chosen from the data: {chosen}",
        f"next: python -m flows build {name} --plan",
    ]
    return "\n".join(lines)
