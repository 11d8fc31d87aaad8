"""A budget as people say it, "5MB 1ms 0.5pt", and its place in params.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.editing import replace_params, with_values
from pipelines.config import ClassificationRecipe, Task, load_recipe
from pipelines.errors import RecipeError
from pipelines.exploring.yardsticks import Yardstick, yardstick_of

#: Unit -> the bound that it sets, and what one of it is in the recipe; whatever the task.
COSTS: dict[str, tuple[str, float]] = {
    "b": ("max_bytes", 1),
    "kb": ("max_bytes", 1e3),
    "mb": ("max_bytes", 1e6),
    "gb": ("max_bytes", 1e9),
    "us": ("max_p50_ms", 1e-3),
    "ms": ("max_p50_ms", 1),
    "s": ("max_p50_ms", 1e3),
    "mb-memory": ("max_memory_bytes", 1e6),
    "gb-memory": ("max_memory_bytes", 1e9),
}
#: A task's number -> the unit of what may be lost of it, and an example of a budget.
LOSSES = {
    "accuracy": ("pt", "12MB 2ms 6pt"),
    "span_f1": ("pt", "12MB 2ms 6pt"),
    "bits_per_byte": ("bpb", "2MB 1ms 0.1bpb"),
}
_WORD = re.compile(r"(\d+(?:\.\d+)?)([a-z/-]+)", re.IGNORECASE)
_WHOLE = {"max_bytes", "max_memory_bytes"}
#: What a classifier's gate bounds under the same name.
GATED = ("max_bytes", "max_accuracy_loss")


def parse_budget(text: str, cheapest: str | None, yardstick: Yardstick) -> dict[str, Any]:
    """The recipe's `budget` block for a line such as `5MB 1ms 0.5pt`; what it does not name is null.

    Where `cheapest` is None, the smallest model is wanted of those that hold a loss that is named, else the one that loses least.
    Raises RecipeError for a word that is no bound, and for two words that set the same one.
    """
    lost, example = LOSSES[yardstick.key]
    units = COSTS | {yardstick.rate: (yardstick.rate_bound, 1), lost: (yardstick.bound, 1)}
    bounds: dict[str, Any] = {name: None for name in yardstick.budget.model_fields if name != "cheapest"}
    for word in text.split():
        found = _WORD.fullmatch(word)
        unit = found.group(2).lower() if found else ""
        if found is None or unit not in units or float(found.group(1)) == 0:
            raise RecipeError(
                f"budget: {word!r} is no bound; write a number above 0 and one of {', '.join(units)}, as in {example}"
            )
        name, scale = units[unit]
        if bounds[name] is not None:
            raise RecipeError(f"budget: {word!r} sets {name} a second time; leave one of them")
        value = float(found.group(1)) * scale
        bounds[name] = round(value) if name in _WHOLE else value
    if all(value is None for value in bounds.values()):
        raise RecipeError(f"budget: {text!r} names no bound; write some, as in {example}")
    if cheapest is None:
        cheapest = f"{yardstick.key}_loss" if bounds[yardstick.bound] is None else "bytes"
    try:
        return yardstick.budget.model_validate(bounds | {"cheapest": cheapest}).model_dump()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))} {item['input']}: {item['msg']}" for item in error.errors()
        )
        raise RecipeError(f"budget: {text!r} sets what cannot be: {wrong}") from error


def yardstick_at(place: str, task: Task) -> Yardstick:
    """The yardstick of the task of a recipe. Raises RecipeError, with its place, where no budget shapes such models."""
    try:
        return yardstick_of(task)
    except RecipeError as error:
        raise RecipeError(f"{place}.{error}") from error


def write_budget(params: Path, model: str, text: str) -> None:
    """Put a budget in a recipe's place in params.yaml, the rest of the file as it stands.

    Bytes and margin that it does not name are a classifier's gate's: what the gate refuses is no choice. Of another task, a budget that names
    no loss asks for the most accurate model within the rest. Raises RecipeError where the text is no
    budget, the gate is tighter than it, the recipe is not one that a budget shapes, or another recipe shares its block.
    """
    recipe = load_recipe(params, model)
    yardstick = yardstick_at(f"{params}: models.{model}", recipe.task)
    if recipe.budget is None:
        raise RecipeError(
            f"{params}: models.{model}.budget is null: its shape stands in the recipe; write one that a budget shapes with "
            f"`python -m flows new NAME --data FILE --task {recipe.task.type} --budget {text!r}`"
        )
    wanted = parse_budget(text, recipe.budget.cheapest, yardstick)
    if isinstance(recipe, ClassificationRecipe):
        wanted |= {name: getattr(recipe.gate, name) for name in GATED if wanted[name] is None}
    elif wanted[yardstick.bound] is None:  # the cheapest of all, whatever it answers, is what nobody wants
        wanted["cheapest"] = f"{yardstick.key}_loss"
    if wanted == recipe.budget.model_dump():
        return
    after = with_values(params, params.read_text(encoding="utf-8"), model, "budget", wanted)
    replace_params(params, after)
