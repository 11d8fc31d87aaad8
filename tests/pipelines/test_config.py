from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import load_params, load_recipe
from pipelines.errors import RecipeError
from tests.recipes import BY_BUDGET, LOSSES, recipe_dict
from tests.sequence_recipes import sequence_recipe_dict

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def recipe() -> dict[str, Any]:
    block: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["models"]["support-intents"]
    return copy.deepcopy(block)


def check(tmp_path: Path, recipe: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"models": {"m": recipe}}))
    load_params(path)


def test_the_projects_own_params_are_valid() -> None:
    assert "support-intents" in load_params(PARAMS).models


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("distill.tempo", 3, r"models\.m\.distill\.tempo: unknown key \(value 3\); remove it"),
        ("task.seed", "many", r"models\.m\.task\.seed: 'many': .*valid integer"),
        ("task.max_length", 4, r"models\.m\.task\.max_length: 4: .*greater than or equal to 8"),
        ("quantize.technique", "int3", r"models\.m\.quantize: .*'none', 'dynamic_int8', 'static_int8'"),
        (
            "data.checks.empty_text",
            "ignore",
            r"models\.m\.data\.checks\.empty_text: 'ignore': .*'fail' or 'quarantine'",
        ),
        ("label.hidden_layers", [], r"distill\.losses reads hidden states, but label\.hidden_layers is empty"),
        ("label.hidden_layers", [0], r"holds none of distill\.student\.layers"),
        ("distill.losses.relation", 1.0, r"distill\.losses\.relation is 1\.0, but label\.relations is false"),
        ("data.splits.test", 0.9, r"must be below 1: nothing would be left for train"),
        ("data.unlabelled", "more.txt", r"data\.splits\.file must name the labelled one"),
    ],
)
def test_a_bad_value_names_key_value_and_what_is_allowed(
    tmp_path: Path, recipe: dict[str, Any], path: str, value: Any, message: str
) -> None:
    *parents, last = path.split(".")
    block = recipe
    for name in parents:
        block = block[name]
    block[last] = value
    with pytest.raises(RecipeError, match=message):
        check(tmp_path, recipe)


@pytest.mark.parametrize(
    "address",
    ["https://me:plant@host/x.csv", "https://host/x.csv?Token=plant", "s3://b/x.csv?a=1&X-Amz-Signature=plant"],
)
def test_a_secret_in_the_address_of_the_data_is_refused_and_not_shown(
    tmp_path: Path, recipe: dict[str, Any], address: str
) -> None:
    """It would stand in params.yaml, dvc.lock, logs and the published record."""
    recipe["data"]["source"] = address
    with pytest.raises(RecipeError, match="holds a password, a token or a signature") as found:
        check(tmp_path, recipe)
    assert "plant" not in str(found.value)
    recipe["data"]["source"] = "https://host/x.csv?page=1"
    check(tmp_path, recipe)


def test_nothing_to_learn_from_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["distill"]["losses"] |= {"kl": 0, "cross_entropy": 0}
    with pytest.raises(RecipeError, match="at least one of kl, reverse_kl and cross_entropy"):
        check(tmp_path, recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budget": {"max_bytes": 6_000_000}},
            r"budget\.max_bytes is 6e\+06, and gate\.max_bytes refuses more than 5e\+06",
        ),
        (
            {"gate": {"max_accuracy_loss": 40}},
            r"budget\.max_accuracy_loss is 60, and gate\.max_accuracy_loss refuses more than 40",
        ),
        (
            {"budget": {"max_accuracy_loss": None}},
            r"budget\.max_accuracy_loss is null, and gate\.max_accuracy_loss refuses",
        ),
        (
            {"label": {"hidden_layers": [1]}},
            r"prune\.losses reads hidden states, but label\.hidden_layers \[1\] holds none of the layers \[0, 2\]",
        ),
        (
            {"prune": {"losses": LOSSES | {"relation": 1.0}}, "label": {"relations": True}},
            r"prune\.losses\.relation is 1\.0, but an elastic student's heads",
        ),
        ({"explore": {"latency_rounds": 19}}, r"latency_rounds: 19: .*greater than or equal to 20"),
        (
            {"explore": None},
            r"a model by budget needs all of .*; the recipe has .*, and lacks explore\.technique: search",
        ),
    ],
)
def test_a_recipe_by_budget_that_cannot_end_well_is_refused(
    tmp_path: Path, changes: dict[str, dict[str, Any] | None], message: str
) -> None:
    recipe = recipe_dict(**BY_BUDGET)
    recipe["prune"]["losses"] = recipe["prune"]["losses"] | {"hidden_mse": 1.0}
    check(tmp_path, recipe)
    for section, values in changes.items():
        recipe[section] = {"technique": "none"} if values is None else recipe[section] | values
    with pytest.raises(RecipeError, match=message):
        check(tmp_path, recipe)


def test_of_the_most_accurate_no_margin_is_asked(tmp_path: Path) -> None:
    recipe = recipe_dict(**BY_BUDGET)
    recipe["budget"] |= {"cheapest": "accuracy_loss", "max_accuracy_loss": None}
    check(tmp_path, recipe)


MIXED = {
    "technique": "mixed",
    "share_high": 0.25,
    "block_size": 32,
    "symmetric": True,
    "accuracy_level": 4,
    "rounding": "nearest",
    "calibration_rows": 8,
    "parity": 1e-3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy_level": 0}, r"8-bit blocks with accuracy_level 0 are slower than float32"),
        ({"share_high": 1.0}, r"share_high: 1\.0: .*less than 1"),
        ({"bits": 4}, r"bits: unknown key"),
    ],
)
def test_a_mix_without_sense_is_refused(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    recipe["quantize"] = MIXED | {"calibrate": "biases"}
    check(tmp_path, recipe)
    recipe["quantize"] |= changes
    with pytest.raises(RecipeError, match=message):
        check(tmp_path, recipe)


def test_an_encoder_of_its_own_has_no_answer_to_be_ranked_by(tmp_path: Path) -> None:
    check(tmp_path, sequence_recipe_dict("text-generation", quantize=MIXED))
    with pytest.raises(RecipeError, match=r"models\.m\.quantize: .*'mixed'"):
        check(tmp_path, sequence_recipe_dict("text-to-text", quantize=MIXED))


def test_a_missing_value_is_an_error_not_a_default(tmp_path: Path, recipe: dict[str, Any]) -> None:
    del recipe["distill"]["training"]["patience"]
    with pytest.raises(RecipeError, match=r"training\.patience: missing; every value stands in params\.yaml"):
        check(tmp_path, recipe)


def test_model_names_are_safe_for_paths(tmp_path: Path, recipe: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"models": {"../evil": recipe}}))
    with pytest.raises(RecipeError, match="models"):
        load_params(path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("models: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no model 'nope' under `models`; there are: .*support-intents"):
        load_recipe(PARAMS, "nope")
