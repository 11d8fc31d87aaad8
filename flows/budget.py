"""A budget as people say it, "5MB 1ms 0.5pt", and its place in params.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pipelines.config import Budget, load_recipe
from pipelines.errors import RecipeError

#: Unit -> the bound that it sets, and what one of it is in the recipe.
UNITS: dict[str, tuple[str, float]] = {
    "b": ("max_bytes", 1),
    "kb": ("max_bytes", 1e3),
    "mb": ("max_bytes", 1e6),
    "gb": ("max_bytes", 1e9),
    "us": ("max_p50_ms", 1e-3),
    "ms": ("max_p50_ms", 1),
    "s": ("max_p50_ms", 1e3),
    "texts/s": ("min_texts_per_s", 1),
    "mb-memory": ("max_memory_bytes", 1e6),
    "gb-memory": ("max_memory_bytes", 1e9),
    "pt": ("max_accuracy_loss", 1),
}
_WORD = re.compile(r"(\d+(?:\.\d+)?)([a-z/-]+)", re.IGNORECASE)
_WHOLE = {"max_bytes", "max_memory_bytes"}


def parse_budget(text: str, cheapest: str) -> dict[str, Any]:
    """The recipe's `budget` block for a line such as `5MB 1ms 0.5pt`; what it does not name is null.

    Raises RecipeError for a word that is no bound, and for two words that set the same one.
    """
    bounds: dict[str, Any] = {name: None for name in Budget.model_fields if name != "cheapest"}
    for word in text.split():
        found = _WORD.fullmatch(word)
        unit = found.group(2).lower() if found else ""
        if found is None or unit not in UNITS or float(found.group(1)) == 0:
            raise RecipeError(
                f"budget: {word!r} is no bound; write a number above 0 and one of {', '.join(UNITS)}, as in 5MB 1ms 0.5pt"
            )
        name, scale = UNITS[unit]
        if bounds[name] is not None:
            raise RecipeError(f"budget: {word!r} sets {name} a second time; leave one of them")
        value = float(found.group(1)) * scale
        bounds[name] = round(value) if name in _WHOLE else value
    if all(value is None for value in bounds.values()):
        raise RecipeError(f"budget: {text!r} names no bound; write some, as in 5MB 1ms 0.5pt")
    return bounds | {"cheapest": cheapest}


def write_budget(params: Path, model: str, text: str) -> None:
    """Put a budget in a recipe's place in params.yaml, the rest of the file as it stands.

    Raises RecipeError where the text is no budget, or the recipe is not one that a budget shapes.
    """
    from ruamel.yaml import YAML

    recipe = load_recipe(params, model)
    if not isinstance(recipe.budget, Budget):
        raise RecipeError(
            f"{params}: models.{model}.budget is null: its shape stands in the recipe; take a recipe with distill.student.kind: elastic "
            "and explore.technique: search"
        )
    wanted = parse_budget(text, recipe.budget.cheapest)
    if wanted == recipe.budget.model_dump():
        return
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(params.read_text(encoding="utf-8"))
    document["models"][model]["budget"].update(wanted)
    beside = params.with_name(f"{params.name}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            yaml.dump(document, file)
        load_recipe(beside, model)
        beside.replace(params)
    finally:
        beside.unlink(missing_ok=True)
