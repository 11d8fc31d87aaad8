"""`python -m flows new --teacher`: a recipe whose sizes, rates and bounds follow from another teacher's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.fitting import by_budget
from flows.new import TEMPLATES, Columns, new_recipe
from flows.teachers import Sizes, Teacher, every_second, look_at, parts_of, taught_by
from pipelines.bundle import sha256_of
from pipelines.config import RECIPES, load_recipe
from pipelines.errors import ModelError, RecipeError
from tests.flows.test_new import rows, sequence_rows, write
from tests.flows.toy import REPOSITORY
from tests.tiny import tiny_model

MINILM = Sizes(22_713_216, 30_522, 384, 6, 384, 1536, 12, 512)
BERT_BASE = Sizes(109_482_240, 30_522, 768, 12, 768, 3072, 12, 512)
MOBILEBERT = Sizes(24_581_888, 30_522, 128, 24, 512, None, None, 512)
BERT_TINY = Sizes(4_385_920, 30_522, 128, 2, 128, 512, 2, 512)
ONE_LAYER = Sizes(31_000_000, 30_522, 768, 1, 768, 3072, 12, None)
ODD = Sizes(11_800_000, 30_000, 312, 3, 312, 600, 12, 512)
TINY = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
TASK = "text-classification"
GUESSED = Columns(None, {})
NONE = {
    "max_bytes": None,
    "max_p50_ms": 5.0,
    "min_texts_per_s": None,
    "max_memory_bytes": None,
    "max_accuracy_loss": 2,
    "cheapest": "bytes",
}


def template(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text())
    return values


def taught(sizes: Sizes) -> Any:
    return RECIPES[TASK].model_validate(taught_by(template(TASK), "models/own", Teacher("ab" * 32, sizes)))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    return path


def test_the_template_is_what_follows_from_its_own_teacher() -> None:
    given, found = RECIPES[TASK].model_validate(template(TASK)), taught(MINILM)
    assert (found.label, found.distill, found.prune) == (given.label, given.distill, given.prune)
    assert found.teach.training == given.teach.training
    assert (found.teach.source, found.teach.sha256) == ("models/own", "ab" * 32)
    parts = template("by-budget/text-classification")["distill"]["student"]
    for name in ("intermediate_sizes", "num_attention_heads"):
        assert parts_of(MINILM)[name] == parts[name]
    # Of a deep stack the last layers alone would know little: every second, where the template has the last two of three.
    assert (parts["layers"], parts_of(MINILM)["layers"]) == ([[1, 3, 5], [3, 5], [5]], [[1, 3, 5], [1, 5], [5]])


def test_a_larger_one_learns_more_slowly_and_is_cut_to_twice_the_layers() -> None:
    recipe = taught(BERT_BASE)
    assert recipe.label.hidden_layers == recipe.distill.student.layers == [1, 3, 5, 7, 9, 11]
    assert recipe.prune.intermediate_size == 2048
    rates = (recipe.teach.training, recipe.distill.training, recipe.prune.recovery)
    assert [each.learning_rate for each in rates] == [5e-5, 8e-5, 5e-5]
    assert recipe.gate.max_bytes == 4 * BERT_BASE.parameters // 6


@pytest.mark.parametrize("sizes", [BERT_TINY, ONE_LAYER])
def test_the_gate_of_a_small_teacher_can_be_held(sizes: Sizes) -> None:
    """Its embeddings in int8 and the layers that stay are more than a sixth of it."""
    gate = taught(sizes).gate
    student = 20_000 * sizes.hidden_size + (sizes.parameters - sizes.tokens * sizes.hidden_size) * (
        1 / max(1, sizes.depth)
    )
    assert student < gate.max_bytes < 4 * sizes.parameters
    assert 1 <= gate.min_size_ratio <= 4 * sizes.parameters / gate.max_bytes


def test_what_cannot_be_cut_keeps_its_width_and_learns_from_logits() -> None:
    recipe = taught(MOBILEBERT)
    assert recipe.prune.intermediate_size is None
    assert len(recipe.distill.student.layers) == 12
    assert recipe.label.hidden_layers == [] and recipe.distill.losses.hidden_mse == recipe.prune.losses.hidden_mse == 0
    parts = parts_of(MOBILEBERT)
    assert parts["intermediate_sizes"] == parts["num_attention_heads"] == []


def test_texts_are_no_longer_than_it_reads() -> None:
    values = template(TASK) | {"task": template(TASK)["task"] | {"max_length": 100}}
    for context, length in ((64, 64), (512, 100), (None, 100)):
        teacher = Teacher("ab" * 32, replace(MINILM, context=context))
        assert taught_by(values, "models/own", teacher)["task"]["max_length"] == length


@pytest.mark.parametrize("sizes", [MINILM, BERT_BASE, MOBILEBERT, BERT_TINY, ONE_LAYER, ODD])
def test_a_budget_searches_the_parts_of_this_teacher(sizes: Sizes) -> None:
    values = taught_by(template(TASK), "models/own", Teacher("ab" * 32, sizes))
    recipe = RECIPES[TASK].model_validate(by_budget(values, template("by-budget/text-classification"), NONE, sizes))
    student = recipe.distill.student
    assert student.layers[0] == every_second(list(range(sizes.depth)))
    assert [len(depth) for depth in student.layers] == sorted({len(depth) for depth in student.layers}, reverse=True)
    assert len(student.layers[-1]) == 1 and {depth[-1] for depth in student.layers} == {sizes.depth - 1}
    assert student.without_layers.hidden_size <= min(384, sizes.hidden_size)
    assert recipe.prune.recovery.learning_rate == values["prune"]["recovery"]["learning_rate"]
    assert recipe.distill.training.learning_rate == values["distill"]["training"]["learning_rate"]
    assert (recipe.distill.losses.hidden_mse > 0) == (sizes.intermediate_size is not None)


def test_a_width_that_blocks_do_not_divide_is_not_rounded_in_blocks() -> None:
    values = taught_by(template(TASK), "models/own", Teacher("ab" * 32, ODD))
    found = by_budget(values, template("by-budget/text-classification"), NONE, ODD)
    assert set(found["explore"]["quantizations"]) == {"int8", "static8"}
    assert found["distill"]["student"]["without_layers"]["hidden_size"] == 288
    assert found["distill"]["student"]["intermediate_sizes"] == [600, 384, 288, 192, 96]


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


def test_a_folder_below_params_is_named_as_the_data_is(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = tiny_model(params.parent / "models" / "body")
    new_recipe(params, "own", write(params.parent / "t.csv", rows(60)), TASK, GUESSED, str(body), None)
    recipe = load_recipe(params, "own")
    assert (recipe.teach.source, recipe.teach.sha256) == ("models/body", sha256_of(body / "model.safetensors"))
    assert recipe.distill.student.layers == [0, 2]
    assert "taught by models/body at 0.0003" in capsys.readouterr().out


def test_a_model_without_layers_is_no_teacher(tmp_path: Path) -> None:
    from transformers import AutoModel, EuroBertConfig

    body = tiny_model(tmp_path / "body", "eurobert")
    AutoModel.from_config(EuroBertConfig.from_pretrained(body, num_hidden_layers=0)).save_pretrained(body)
    with pytest.raises(ModelError, match="without layers has none to give"):
        look_at(str(body))


def test_a_package_is_named_as_it_is(params: Path) -> None:
    source = template("text-classification")["teach"]["source"]
    new_recipe(params, "own", write(params.parent / "t.csv", rows(60)), TASK, GUESSED, source, "5MB")
    recipe = load_recipe(params, "own")
    assert recipe.teach.source == source
    assert recipe.teach.sha256 == template("text-classification")["teach"]["sha256"]
    assert look_at(source).sizes == MINILM


@pytest.mark.parametrize(
    ("task", "teacher", "kind", "message"),
    [
        ("token-classification", "models/own", RecipeError, "only a text classifier's recipe is fitted"),
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
