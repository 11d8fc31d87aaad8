"""`python -m flows new --teacher`: a recipe whose sizes, rates and bounds follow from another teacher's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.fitting import by_budget
from flows.new import TEMPLATES, Columns, new_recipe
from flows.teachers import Teacher, every_second, look_at, parts_of, taught_by
from pipelines.bundle import sha256_of
from pipelines.config import RECIPES, load_recipe
from pipelines.errors import ModelError, RecipeError
from pipelines.families.sizes import Sizes
from tests.flows.test_new import rows, sequence_rows, write
from tests.flows.toy import REPOSITORY
from tests.tiny import tiny_model

MINILM = Sizes(22_713_216, 6, 384, 1536, 12)
BERT_BASE = Sizes(109_482_240, 12, 768, 3072, 12)
MOBILEBERT = Sizes(24_581_888, 24, 512, None, None)
TINY = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
GUESSED = Columns(None, {})
NONE = {"max_bytes": None, "max_p50_ms": 5.0, "min_texts_per_s": None, "max_memory_bytes": None, "max_accuracy_loss": 2}


def template(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text())
    return values


def taught(task: str, sizes: Sizes) -> Any:
    return RECIPES[task].model_validate(taught_by(template(task), "models/own", Teacher("ab" * 32, sizes)))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    return path


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_the_template_is_what_follows_from_its_own_teacher(task: str) -> None:
    given, found = RECIPES[task].model_validate(template(task)), taught(task, MINILM)
    assert (found.label, found.distill, found.prune) == (given.label, given.distill, given.prune)
    assert found.teach.training == given.teach.training
    assert (found.teach.source, found.teach.sha256) == ("models/own", "ab" * 32)
    parts = template("by-budget")["distill"]["student"]
    for name in ("intermediate_sizes", "num_attention_heads"):
        assert parts_of(MINILM)[name] == parts[name]


def test_a_larger_one_learns_more_slowly_and_is_cut_to_twice_the_layers() -> None:
    recipe = taught("text-classification", BERT_BASE)
    assert recipe.label.hidden_layers == recipe.distill.student.layers == [1, 3, 5, 7, 9, 11]
    assert recipe.prune.intermediate_size == 2048
    rates = (recipe.teach.training, recipe.distill.training, recipe.prune.recovery)
    assert [each.learning_rate for each in rates] == [5e-5, 8e-5, 5e-5]
    assert recipe.gate.max_bytes == 4 * BERT_BASE.parameters // 6


def test_the_bytes_of_a_tagger_are_a_bound_of_its_own() -> None:
    bounds = {bound.metric: bound.at_most for bound in taught("token-classification", BERT_BASE).gate.bounds}
    assert bounds["model.bytes"] == 4 * BERT_BASE.parameters // 6


def test_what_cannot_be_cut_keeps_its_width_and_heads() -> None:
    recipe = taught("text-classification", MOBILEBERT)
    assert (recipe.prune.intermediate_size, recipe.prune.num_attention_heads) == (None, None)
    assert len(recipe.distill.student.layers) == 12
    parts = parts_of(MOBILEBERT)
    assert parts["intermediate_sizes"] == parts["num_attention_heads"] == []


@pytest.mark.parametrize("sizes", [MINILM, BERT_BASE, MOBILEBERT, Sizes(4_000_000, 1, 128, 512, 2)])
def test_a_budget_searches_the_parts_of_this_teacher(sizes: Sizes) -> None:
    values = taught_by(template("text-classification"), "models/own", Teacher("ab" * 32, sizes))
    recipe = RECIPES["text-classification"].model_validate(by_budget(values, template("by-budget"), NONE, sizes))
    student = recipe.distill.student
    assert student.layers[0] == recipe.label.hidden_layers
    assert [len(depth) for depth in student.layers] == sorted({len(depth) for depth in student.layers}, reverse=True)
    assert len(student.layers[-1]) == 1 and {depth[-1] for depth in student.layers} == {sizes.depth - 1}
    assert student.without_layers.hidden_size == min(384, sizes.hidden_size)
    assert recipe.prune.recovery.learning_rate == values["prune"]["recovery"]["learning_rate"]
    assert recipe.distill.training.learning_rate == values["distill"]["training"]["learning_rate"]


def test_every_second_layer_ends_with_the_last() -> None:
    assert [every_second(list(range(depth))) for depth in (1, 2, 3, 6)] == [[0], [1], [0, 2], [1, 3, 5]]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2"])
def test_the_sizes_are_those_of_the_weights(kind: str, tmp_path: Path) -> None:
    found = look_at(str(tiny_model(tmp_path / "body", kind)))
    assert found.sha256 == sha256_of(tmp_path / "body" / "model.safetensors")
    assert {name: getattr(found.sizes, name) for name in TINY} == TINY


@pytest.mark.parametrize("kind", ["mobilebert", "modernbert", "eurobert"])
def test_an_architecture_that_cannot_be_cut_has_depth_alone(kind: str, tmp_path: Path) -> None:
    sizes = look_at(str(tiny_model(tmp_path / "body", kind))).sizes
    assert (sizes.depth, sizes.intermediate_size, sizes.num_attention_heads) == (3, None, None)


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_a_folder_below_params_is_named_as_the_data_is(params: Path, task: str) -> None:
    body = tiny_model(params.parent / "models" / "body")
    data = params.parent / "t.csv"
    if task == "text-classification":
        write(data, rows(60))
    else:
        sequence_rows(data)
    new_recipe(params, "own", data, task, GUESSED, str(body), None)
    recipe = load_recipe(params, "own")
    assert (recipe.teach.source, recipe.teach.sha256) == ("models/body", sha256_of(body / "model.safetensors"))
    assert recipe.distill.student.layers == [0, 2]


def test_a_package_is_named_as_it_is(params: Path) -> None:
    source = template("text-classification")["teach"]["source"]
    new_recipe(params, "own", write(params.parent / "t.csv", rows(60)), "text-classification", GUESSED, source, "5MB")
    recipe = load_recipe(params, "own")
    assert recipe.teach.source == source
    assert recipe.teach.sha256 == template("text-classification")["teach"]["sha256"]
    assert look_at(source).sizes == MINILM


@pytest.mark.parametrize(
    ("task", "teacher", "kind", "message"),
    [
        ("text-generation", "models/own", RecipeError, "begins with fresh weights"),
        ("text-classification", "models/own", ModelError, "models/own: no such folder"),
        ("text-classification", "package:no_such/model", ModelError, "no installed package 'no_such'"),
        ("text-classification", "hub:some/model", ModelError, "pinned revision"),
    ],
)
def test_a_teacher_that_cannot_be_one_writes_nothing(
    params: Path, task: str, teacher: str, kind: type[Exception], message: str
) -> None:
    before = params.read_bytes()
    with pytest.raises(kind, match=message):
        new_recipe(params, "own", sequence_rows(params.parent / "t.csv"), task, Columns("message", {}), teacher, None)
    assert params.read_bytes() == before
