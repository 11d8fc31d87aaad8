"""`python -m flows new`: look at a data set and append a complete, commented recipe to params.yaml."""

from __future__ import annotations

import copy
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipelines.config import NAME_PATTERN, ClassificationRecipe, load_params
from pipelines.data.profile import QUANTILES, Profile, profile
from pipelines.errors import DataError, RecipeError

TEMPLATES = Path(__file__).parent / "recipes"

#: Characters a token, measured on an English tokenizer: other languages break into shorter pieces.
CHARS_A_TOKEN = {"en": 4.0}
OTHER_CHARS_A_TOKEN = 2.5
#: Attention costs grow with the square of the length, and what a text is about rarely stands after its first hundred words.
LONGEST = 128

#: Up to so many training rows: epochs of teach, distill and recovery. Few rows need many passes, the best epoch is kept.
EPOCHS: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (6_000, (10, 20, 10)),
    (20_000, (5, 10, 5)),
    (math.inf, (3, 5, 3)),
)

#: Share of rows on which teacher and model typically disagree; it decides how narrow an interval a test set can give.
DISAGREEMENT = 0.06


@dataclass(frozen=True)
class Split:
    """How the rows are cut, and how many of those looked at are left to train on and to test on."""

    recipe: dict[str, Any]
    train_rows: int
    test_rows: int


def new_recipe(params: Path, name: str, data: Path, task: str) -> int:
    """Append a recipe for a data set; 0.

    Raises RecipeError where params.yaml is at fault or the name is taken or invalid, DataError where the data cannot be read.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise RecipeError(
            f"{name!r}: no valid name; use lower-case letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    known = load_params(params).models
    if name in known:
        raise RecipeError(f"{params}: there is a model {name!r} already; choose another name, or edit its block")
    if not data.exists():
        raise DataError(f"{data}: no such file or folder")
    seen = profile(data)
    recipe = ClassificationRecipe.model_validate(
        recipe_for(seen, _template(task), source_of(data, params), os.cpu_count() or 1)
    )
    write_block(params, name, recipe)
    print(summary(params, name, seen, recipe))
    return 0


def _template(task: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((TEMPLATES / f"{task}.yaml").read_text(encoding="utf-8"))
    return values


def source_of(data: Path, params: Path) -> str:
    """The data's place as the recipe names it: relative to params.yaml where it lies below, else absolute."""
    root, place = params.absolute().parent, data.absolute()
    return (place.relative_to(root) if place.is_relative_to(root) else place).as_posix()


def recipe_for(seen: Profile, template: Mapping[str, Any], source: str, cores: int) -> dict[str, Any]:
    """The template with every value fitted that depends on the data or on the machine."""
    split = split_for(seen, template["data"]["splits"])
    teach, distill, recover = next(epochs for limit, epochs in EPOCHS if split.train_rows <= limit)
    recipe: dict[str, Any] = copy.deepcopy(dict(template))
    recipe["task"] |= {"max_length": max_length(seen), "threads": min(cores, 4)}
    recipe["data"] |= {
        "source": source,
        "text_column": seen.text_column,
        "label_column": seen.label_column,
        "splits": split.recipe,
    }
    recipe["data"]["checks"] |= {
        "long_text": {
            "action": "quarantine",
            "max_chars": max(1000, round_up(4 * seen.lengths[QUANTILES.index(0.99)], 100)),
        },
        "class_count": {"action": "fail", "min_rows": smallest_class(seen, split)},
        "language": {"action": "quarantine", "expected": seen.language, "confidence": 0.99} if seen.language else None,
    }
    recipe["teach"]["training"]["epochs"] = teach
    recipe["distill"]["training"]["epochs"] = distill
    recipe["prune"]["recovery"]["epochs"] = recover
    recipe["prune"]["calibration_rows"] = max(1, min(recipe["prune"]["calibration_rows"], split.train_rows))
    recipe["gate"]["max_accuracy_loss"] = margin(split.test_rows)
    return recipe


def split_for(seen: Profile, made: Mapping[str, Any]) -> Split:
    """Splits that the folder holds, or fractions for the factory to cut."""
    if seen.files:
        validation = seen.files.get("validation", made["validation"])
        recipe = {"kind": "given", "train": seen.files["train"], "validation": validation, "test": seen.files["test"]}
        left = 1.0 if "validation" in seen.files else 1.0 - made["validation"]
        return Split(recipe, int(seen.rows * left), int(seen.rows * made["test"]))
    share = 1.0 - made["validation"] - made["test"]
    return Split(dict(made), int(seen.rows * share), int(seen.rows * made["test"]))


def max_length(seen: Profile) -> int:
    """Tokens that hold 99 of 100 texts, in steps of 16 (kernels like it), at most LONGEST."""
    tokens = seen.lengths[QUANTILES.index(0.99)] / CHARS_A_TOKEN.get(seen.language or "en", OTHER_CHARS_A_TOKEN) + 2
    return min(LONGEST, max(16, round_up(tokens, 16)))


def smallest_class(seen: Profile, split: Split) -> int:
    """The training rows that the smallest class has now, with a little room: a class that shrinks below is noticed."""
    share = split.train_rows / max(1, seen.rows)
    return min(20, max(2, int(0.8 * share * min(seen.label_counts.values(), default=0))))


def margin(test_rows: int) -> float:
    """Points of accuracy: one for the model, and the half-width of the 95 % interval that so many test rows give."""
    width = 196 * math.sqrt(DISAGREEMENT / max(1, test_rows))
    return min(50.0, math.ceil(2 * (1 + width)) / 2)


def round_up(value: float, step: int) -> int:
    """The next multiple of a step."""
    return math.ceil(value / step) * step


def write_block(params: Path, name: str, recipe: ClassificationRecipe) -> None:
    """Put a block at the end of `models`; every byte that was there stays. The file changes whole or not at all."""
    text = params.read_bytes().decode("utf-8")
    place, column = end_of_models(text)
    before, after = text[:place], text[place:]
    pad = " " * column
    block = "\n".join([f"{pad}{name}:", *block_lines(recipe, column + 2)]) + "\n"
    if before and not before.endswith("\n"):
        before += "\n"
    draft = params.with_name(f"{params.name}.partial")
    try:
        draft.write_bytes((before + block + after).encode("utf-8"))
        load_params(draft)
        shutil.copymode(params, draft)
        draft.replace(params)
    finally:
        draft.unlink(missing_ok=True)


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
    line: str = yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True)
    return line.strip()[1:-1]


def summary(params: Path, name: str, seen: Profile, recipe: ClassificationRecipe) -> str:
    """What was seen, what was chosen, what to do next."""
    longest = seen.lengths[QUANTILES.index(0.99)]
    lines = [
        f"{seen.path}: {seen.rows} rows, text in {seen.text_column!r}, {len(seen.label_counts)} labels in {seen.label_column!r}",
        f"  language {seen.language or 'unclear'}, 99 of 100 texts have at most {longest} characters, {seen.duplicate_share:.1%} duplicates",
        f"{params}: wrote {name}; chosen from the data: max_length {recipe.task.max_length}, "
        f"{recipe.teach.training.epochs} epochs of teaching, margin {recipe.gate.max_accuracy_loss} points",
        f"next: python -m flows build {name} --plan",
    ]
    return "\n".join(lines)
