"""A template recipe with every value fitted that depends on the data or on the machine."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.budget import GATED
from flows.teachers import Sizes, elastic_for
from pipelines.data.profile import QUANTILES, Profile

#: Characters a token, measured on an English tokenizer: other languages break into shorter pieces.
CHARS_A_TOKEN = {"en": 4.0}
OTHER_CHARS_A_TOKEN = 2.5
#: Attention costs grow with the square of the length, and what a text is about rarely stands after its first hundred words.
LONGEST = 128
#: A model that writes reads its text to the end, with a small tokenizer of its own.
LONGEST_ANSWERED, LONGEST_ANSWER = 256, 64

#: Up to so many training rows: epochs of teach, distill and recovery. Few rows need many passes, the best epoch is kept.
Epochs = tuple[tuple[float, tuple[int, int, int]], ...]
EPOCHS: Epochs = ((6_000, (10, 20, 10)), (20_000, (5, 10, 5)), (math.inf, (3, 5, 3)))
#: The same for models that write, whose every text has many predictions.
WRITERS_EPOCHS: Epochs = ((2_000, (12, 12, 4)), (8_000, (6, 6, 2)), (20_000, (3, 3, 1)), (math.inf, (1, 1, 1)))

#: Share of rows on which teacher and model typically disagree; it decides how narrow an interval a test set can give.
DISAGREEMENT = 0.06

#: Task -> the key under `data` that names the column of what is to be answered; None: the task has none.
SECOND_KEYS: dict[str, str | None] = {
    "text-classification": "label_column",
    "token-classification": "tags_column",
    "text-generation": None,
    "text-to-text": "target_column",
}


@dataclass(frozen=True)
class Split:
    """How the rows are cut, and how many of those looked at are left to train on and to test on."""

    recipe: dict[str, Any]
    train_rows: int
    test_rows: int


def recipe_for(seen: Profile, template: Mapping[str, Any], source: str, cores: int) -> dict[str, Any]:
    """The template of a task, fitted to what was seen."""
    task = template["task"]["type"]
    split = split_for(seen, template["data"]["splits"])
    recipe: dict[str, Any] = copy.deepcopy(dict(template))
    recipe["task"] |= {"threads": min(cores, 4)} | _lengths(task, seen)
    recipe["data"] |= {"source": source, "text_column": seen.text_column, "splits": split.recipe}
    key = SECOND_KEYS[task]
    if key is not None:
        recipe["data"][key] = seen.second_column
    recipe["data"]["checks"] |= {
        "long_text": {"action": "quarantine", "max_chars": max(1000, round_up(4 * _almost_all(seen.lengths), 100))},
        "language": {"action": "quarantine", "expected": seen.language, "confidence": 0.99} if seen.language else None,
    }
    _fit_learning(recipe, split.train_rows, WRITERS_EPOCHS if task in ("text-generation", "text-to-text") else EPOCHS)
    if task == "text-classification":
        smallest = {"action": "fail", "min_rows": smallest_class(seen, split)}
        recipe["data"]["checks"]["class_count"] = smallest
        recipe["gate"]["max_accuracy_loss"] = margin(split.test_rows)
    return recipe


def by_budget(
    recipe: Mapping[str, Any], sections: Mapping[str, Any], bounds: Mapping[str, Any], sizes: Sizes | None
) -> dict[str, Any]:
    """A fitted classifier's recipe, whose shape a budget of these bounds is to choose.

    Of a margin that is named the smallest model that holds it is wanted; else the most accurate of those that hold the rest. The gate asks for
    no more than the budget; what that does not name of bytes and margin is the gate's as fitted. `sizes` are those of a teacher that is not the
    template's.
    """
    passes = recipe["distill"]["training"]["epochs"]
    found = copy.deepcopy(dict(recipe)) | copy.deepcopy(dict(sections))
    student = found["distill"]["student"]
    if sizes is not None:
        elastic_for(found, sizes)
    # Together as many passes as a student of one shape has.
    student["whole_epochs"] = passes * 2 // 5
    _last(found["distill"]["training"], passes - student["whole_epochs"])
    # How fast a model of these sizes learns is no matter of its shape's choice.
    found["distill"]["training"]["learning_rate"] = recipe["distill"]["training"]["learning_rate"]
    found["prune"]["recovery"]["learning_rate"] = recipe["prune"]["recovery"]["learning_rate"]
    # Without layers a pass costs a tenth.
    _last(student["without_layers"]["training"], passes * 3 // 2)
    _last(found["prune"]["recovery"], recipe["prune"]["recovery"]["epochs"])
    student["calibration_rows"] = recipe["prune"]["calibration_rows"]
    named = {name: recipe["gate"][name] if bounds[name] is None else bounds[name] for name in GATED}
    found["budget"] = {**bounds, **named}
    found["gate"] = {**recipe["gate"], **named, "min_size_ratio": 1, "min_latency_ratio": 1}
    return found


def tokens_by_budget(
    recipe: Mapping[str, Any], sections: Mapping[str, Any], bounds: Mapping[str, Any]
) -> dict[str, Any]:
    """The same of a model that answers token by token: its gate is the budget, and that it is no larger than its teacher."""
    passes = recipe["distill"]["training"]["epochs"]
    found = copy.deepcopy(dict(recipe)) | copy.deepcopy(dict(sections))
    student = found["distill"]["student"]
    student["whole_epochs"] = passes * 2 // 5
    _last(found["distill"]["training"], passes - student["whole_epochs"])
    _last(found["prune"]["recovery"], recipe["prune"]["recovery"]["epochs"])
    student["calibration_rows"] = recipe["prune"]["calibration_rows"]
    found["budget"] = dict(bounds)
    found["gate"] = {"bounds": [{"metric": "comparison.size_ratio", "at_most": None, "at_least": 1}]}
    return found


def _last(training: dict[str, Any], epochs: int) -> None:
    """Passes that are all made: what is shared by many shapes has no best epoch of its own."""
    training |= {"epochs": epochs, "patience": epochs}


def _fit_learning(recipe: dict[str, Any], train_rows: int, table: Epochs) -> None:
    teach, distill, recover = next(epochs for limit, epochs in table if train_rows <= limit)
    recipe["teach"]["training"]["epochs"] = teach
    recipe["distill"]["training"]["epochs"] = distill
    recipe["prune"]["recovery"]["epochs"] = recover
    recipe["prune"]["calibration_rows"] = max(1, min(recipe["prune"]["calibration_rows"], train_rows))


def _lengths(task: str, seen: Profile) -> dict[str, int]:
    """Longest texts in tokens, under the keys of the task's section; of texts end to end the template's blocks stay."""
    if task == "text-generation":
        return {}
    if task != "text-to-text":
        return {"max_length": max_length(seen)}
    return {
        "max_length": _tokens(seen.lengths, OTHER_CHARS_A_TOKEN, LONGEST_ANSWERED),
        "max_target_length": _tokens(seen.second_lengths, OTHER_CHARS_A_TOKEN, LONGEST_ANSWER),
    }


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
    return _tokens(seen.lengths, CHARS_A_TOKEN.get(seen.language or "en", OTHER_CHARS_A_TOKEN), LONGEST)


def _tokens(lengths: Sequence[int], chars_a_token: float, most: int) -> int:
    return min(most, max(16, round_up(_almost_all(lengths) / chars_a_token + 2, 16)))


def _almost_all(lengths: Sequence[int]) -> int:
    """Characters that 99 of 100 texts have at most; 0 of none."""
    return lengths[QUANTILES.index(0.99)] if lengths else 0


def smallest_class(seen: Profile, split: Split) -> int:
    """The training rows that the smallest class has now, with a little room: a class that shrinks below is noticed."""
    share = split.train_rows / max(1, seen.rows)
    return min(20, max(2, int(0.8 * share * min(seen.counts.values(), default=0))))


def margin(test_rows: int) -> float:
    """Points of accuracy: one for the model, and the half-width of the 95 % interval that so many test rows give."""
    width = 196 * math.sqrt(DISAGREEMENT / max(1, test_rows))
    return min(50.0, math.ceil(2 * (1 + width)) / 2)


def round_up(value: float, step: int) -> int:
    """The next multiple of a step."""
    return math.ceil(value / step) * step
