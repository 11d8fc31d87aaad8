"""A budget as people say it, and its place in params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.budget import parse_budget, write_budget
from pipelines.config import load_recipe
from pipelines.errors import RecipeError
from pipelines.exploring.yardsticks import YARDSTICKS
from tests.recipes import BY_BUDGET, recipe_dict
from tests.sequence_recipes import by_budget, sequence_recipe_dict

ACCURACY = YARDSTICKS["text-classification"]
NOTHING = dict.fromkeys(("max_bytes", "max_p50_ms", "min_texts_per_s", "max_memory_bytes", "max_accuracy_loss"))


def test_the_words_of_a_budget() -> None:
    assert parse_budget("5MB 1ms 0.5pt", "bytes", ACCURACY) == NOTHING | {
        "max_bytes": 5_000_000,
        "max_p50_ms": 1.0,
        "max_accuracy_loss": 0.5,
        "cheapest": "bytes",
    }
    assert parse_budget("1.5gb 250us 800texts/s 90MB-memory", "p50_ms", ACCURACY) == NOTHING | {
        "max_bytes": 1_500_000_000,
        "max_p50_ms": 0.25,
        "min_texts_per_s": 800.0,
        "max_memory_bytes": 90_000_000,
        "cheapest": "p50_ms",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 MB", "'5' is no bound; write a number above 0 and one of b, kb, mb"),
        ("0ms", "'0ms' is no bound"),
        ("-1ms", "'-1ms' is no bound"),
        ("5parsecs", "'5parsecs' is no bound"),
        ("5MB 6MB", "'6MB' sets max_bytes a second time"),
        (" ", "names no bound"),
        ("150pt", r"'150pt' sets what cannot be: max_accuracy_loss 150.0: Input should be less than or equal to 100"),
        ("0.4b", r"'0\.4b' sets what cannot be: max_bytes 0: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_no_budget_is_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_budget(text, "bytes", ACCURACY)


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    models = {"plain": recipe_dict(), "tiny": recipe_dict(**BY_BUDGET)}
    path.write_text("# ours\n" + yaml.safe_dump({"models": models}), encoding="utf-8")
    return path


def test_a_budget_is_written_into_its_recipe_and_nothing_else_changes(params: Path) -> None:
    before = load_recipe(params, "tiny")
    write_budget(params, "tiny", "200kB 10pt")
    after = load_recipe(params, "tiny")
    assert after.budget is not None and after.budget.max_bytes == 200_000 and after.budget.max_p50_ms is None
    assert after.model_copy(update={"budget": before.budget}) == before
    assert params.read_text(encoding="utf-8").startswith("# ours\n")


def test_the_built_in_recipes_keep_their_comments_and_anchors(tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(source, encoding="utf-8")
    write_budget(path, "support-budget", "3MB 2pt")
    changed = [line for line in path.read_text(encoding="utf-8").splitlines() if line not in source.splitlines()]
    assert len(changed) == 1 and "max_bytes: 3000000" in changed[0] and "max_p50_ms: null" in changed[0]


def test_the_same_budget_again_leaves_the_file_alone(params: Path) -> None:
    write_budget(params, "tiny", "200kB 10pt")
    before = params.read_bytes()
    write_budget(params, "tiny", "10pt 200kB")
    assert params.read_bytes() == before


def test_what_a_budget_does_not_name_of_bytes_and_margin_is_the_gates(params: Path) -> None:
    write_budget(params, "tiny", "2ms")
    recipe = load_recipe(params, "tiny")
    assert recipe.budget is not None and recipe.budget.max_p50_ms == 2.0
    assert (recipe.budget.max_bytes, recipe.budget.max_accuracy_loss) == (5_000_000, 100)


def test_a_budget_looser_than_the_gate_is_refused_and_the_file_is_as_it_was(params: Path) -> None:
    params.chmod(0o640)
    before = params.read_bytes()
    with pytest.raises(
        RecipeError, match=rf"{params}: models\.tiny: .*budget\.max_bytes is 6e\+06, and gate\.max_bytes refuses"
    ):
        write_budget(params, "tiny", "6MB")
    assert params.read_bytes() == before
    write_budget(params, "tiny", "4MB")
    assert params.stat().st_mode & 0o777 == 0o640
    assert not list(params.parent.glob("*.partial"))


def test_a_budget_that_two_recipes_share_is_not_changed_for_both(params: Path) -> None:
    models = {
        "tiny": (block := recipe_dict(**BY_BUDGET)),
        "other": recipe_dict(**BY_BUDGET) | {"budget": block["budget"]},
    }
    params.write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    assert "&id" in (before := params.read_text(encoding="utf-8"))
    with pytest.raises(RecipeError, match=r"models\.tiny\.budget is shared with other by a YAML alias"):
        write_budget(params, "tiny", "4MB")
    assert params.read_text(encoding="utf-8") == before


def test_an_encoder_decoder_takes_no_budget(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"models": {"m": sequence_recipe_dict("text-to-text")}}), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"models\.m\.task\.type is text-to-text: a budget shapes text-classification, token-"
    ):
        write_budget(path, "m", "4MB")


@pytest.mark.parametrize(
    ("task", "text", "bound"),
    [
        ("text-generation", "4MB 90tokens/s 0.05bpb", {"min_tokens_per_s": 90.0, "max_bits_per_byte_loss": 0.05}),
        ("token-classification", "4MB 90texts/s 2pt", {"min_texts_per_s": 90.0, "max_span_f1_loss": 2.0}),
    ],
)
def test_each_task_has_its_own_words(tmp_path: Path, task: str, text: str, bound: dict[str, float]) -> None:
    path = tmp_path / "params.yaml"
    block = sequence_recipe_dict(task, **by_budget(task))
    path.write_text(yaml.safe_dump({"models": {"m": block}}), encoding="utf-8")
    write_budget(path, "m", text)
    found = load_recipe(path, "m").budget
    assert found is not None and found.model_dump() == {
        **dict.fromkeys(type(found).model_fields),
        "max_bytes": 4_000_000,
        "cheapest": "bytes",
        **bound,
    }
    with pytest.raises(RecipeError, match=r"'1furlong' is no bound"):
        write_budget(path, "m", "1furlong")


def test_a_budget_that_names_no_loss_asks_for_the_best_within_it(tmp_path: Path) -> None:
    """The recipe's own wish, the fewest bytes, would take the worst model that there is."""
    path = tmp_path / "params.yaml"
    block = sequence_recipe_dict("text-generation", **by_budget("text-generation"))
    path.write_text(yaml.safe_dump({"models": {"m": block}}), encoding="utf-8")
    write_budget(path, "m", "4MB")
    found = load_recipe(path, "m").budget
    assert found is not None and found.cheapest == "bits_per_byte_loss"


def test_a_recipe_of_a_fixed_shape_takes_no_budget(params: Path) -> None:
    before = params.read_bytes()
    with pytest.raises(RecipeError, match=r"models\.plain\.budget is null: its shape stands in the recipe"):
        write_budget(params, "plain", "5MB")
    assert params.read_bytes() == before
