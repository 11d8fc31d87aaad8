"""`python -m flows new`: a recipe that fits the data, and a params.yaml of which nothing else changes."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import new
from flows.__main__ import TASKS
from flows.budget import write_budget
from flows.fitting import SECOND_KEYS, recipe_for
from flows.new import Columns
from pipelines.config import RECIPES, ClassificationRecipe, load_params, load_recipe
from pipelines.data.profile import Profile
from pipelines.errors import RecipeError
from tests.flows.toy import REPOSITORY, Toy, make_toy

GUESSED = Columns(None, {})
WORDS = [
    "please",
    "could",
    "you",
    "tell",
    "me",
    "where",
    "my",
    "parcel",
    "number",
    "{}",
    "is",
    "now",
    "because",
    "it",
    "has",
    "not",
    "arrived",
]


def rows(count: int, labels: int = 4) -> list[tuple[str, str]]:
    return [
        (" ".join(WORDS[: 4 + index % 12]).format(index) + f" {index}", f"intent_{index % labels}")
        for index in range(count)
    ]


def write(path: Path, content: list[tuple[str, str]], head: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *content])
    return path


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """The project's own params.yaml, copied."""
    path = tmp_path / "params.yaml"
    path.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return path


def seen(**changes: Any) -> Profile:
    values: dict[str, Any] = {
        "path": "x.csv",
        "files": {},
        "columns": ["text", "label"],
        "text_column": "text",
        "second_column": "label",
        "rows": 1000,
        "counts": {"a": 500, "b": 500},
        "lengths": [3, 40, 80, 100, 200],
        "second_lengths": [1] * 5,
        "duplicate_share": 0.0,
        "language": "en",
    }
    return Profile(**(values | changes))


def fitted(profile: Profile) -> ClassificationRecipe:
    template = yaml.safe_load((new.TEMPLATES / "text-classification.yaml").read_text())
    return ClassificationRecipe.model_validate(recipe_for(profile, template, "data/x.csv", 8))


def test_the_recipe_fits_the_file(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(params.parent / "tickets.csv", rows(200), ("Utterance", "topic"))
    assert new.new_recipe(params, "tickets", data, "text-classification", GUESSED, None, None) == 0
    recipe = load_recipe(params, "tickets")
    assert (recipe.data.source, recipe.data.text_column, recipe.data.label_column) == (
        "tickets.csv",
        "Utterance",
        "topic",
    )
    assert recipe.data.splits.kind == "made"
    assert recipe.distill.training.precision == "auto"
    assert recipe.data.checks.language and recipe.data.checks.language.expected == "en"
    assert "python -m flows build tickets --plan" in capsys.readouterr().out


def test_nothing_that_was_there_changes_and_every_key_is_explained(params: Path) -> None:
    before = params.read_bytes()
    new.new_recipe(
        params, "tickets", write(params.parent / "t.csv", rows(60)), "text-classification", GUESSED, None, None
    )
    after = params.read_bytes()
    assert after.startswith(before)
    block = after[len(before) :].decode().splitlines()
    assert block[0] == "  tickets:"
    keys = [index for index, line in enumerate(block) if index and not line.strip().startswith("#")]
    assert len(keys) > 60
    for index in keys:
        assert "  # " in block[index] or block[index - 1].strip().startswith("# "), block[index]


@pytest.mark.parametrize(
    ("budget", "cheapest", "margin"), [("5MB 1ms 3pt", "bytes", 3.0), ("5MB 900texts/s", "accuracy_loss", None)]
)
def test_a_budget_gives_a_recipe_whose_shape_is_searched(
    params: Path, capsys: pytest.CaptureFixture[str], budget: str, cheapest: str, margin: float | None
) -> None:
    data = write(params.parent / "t.csv", rows(200))
    new.new_recipe(params, "fixed", data, "text-classification", GUESSED, None, None)
    new.new_recipe(params, "searched", data, "text-classification", GUESSED, None, budget)
    fixed, recipe = load_recipe(params, "fixed"), load_recipe(params, "searched")
    assert (recipe.data, recipe.teach, recipe.task) == (fixed.data, fixed.teach, fixed.task)
    assert recipe.budget.max_bytes == recipe.gate.max_bytes == 5_000_000
    assert recipe.budget.cheapest == cheapest
    assert recipe.budget.max_accuracy_loss == recipe.gate.max_accuracy_loss == (margin or fixed.gate.max_accuracy_loss)
    passes = recipe.distill.student.whole_epochs + recipe.distill.training.epochs
    assert passes == fixed.distill.training.epochs
    assert f"the least {cheapest}" in capsys.readouterr().out
    write_budget(params, "searched", "4MB 2pt")
    assert load_recipe(params, "searched").budget.max_bytes == 4_000_000


def test_a_budget_of_a_model_that_writes(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(params.parent / "t.csv", rows(200))
    new.new_recipe(params, "fixed", data, "text-generation", GUESSED, None, None)
    new.new_recipe(params, "searched", data, "text-generation", GUESSED, None, "2MB 0.1bpb")
    fixed, recipe = load_recipe(params, "fixed"), load_recipe(params, "searched")
    assert (recipe.data, recipe.teach, recipe.task) == (fixed.data, fixed.teach, fixed.task)
    assert (recipe.budget.max_bytes, recipe.budget.max_bits_per_byte_loss) == (2_000_000, 0.1)
    assert recipe.budget.cheapest == "bytes" and "the least bytes" in capsys.readouterr().out
    passes = recipe.distill.student.whole_epochs + recipe.distill.training.epochs
    assert passes == fixed.distill.training.epochs


@pytest.mark.parametrize(
    ("task", "budget", "message"),
    [
        ("text-classification", "cheap", "'cheap' is no bound"),
        ("text-to-text", "5MB", "a recipe of text-to-text has none; a budget shapes text-classification, "),
    ],
)
def test_a_budget_that_is_none_writes_nothing(params: Path, task: str, budget: str, message: str) -> None:
    before = params.read_bytes()
    with pytest.raises(RecipeError, match=message):
        new.new_recipe(params, "t", write(params.parent / "t.csv", rows(60)), task, GUESSED, None, budget)
    assert params.read_bytes() == before


@pytest.mark.parametrize("ending", ["", "\n", "\n\n# the end\n"])
def test_whatever_the_file_ends_with(params: Path, ending: str) -> None:
    before = params.read_text().rstrip("\n") + ending
    params.write_text(before)
    new.new_recipe(
        params, "tickets", write(params.parent / "t.csv", rows(60)), "text-classification", GUESSED, None, None
    )
    assert params.read_text().startswith(before)
    assert set(load_params(params).models) == set(load_params(REPOSITORY / "params.yaml").models) | {"tickets"}


def test_a_block_goes_before_what_follows_models() -> None:
    place, column = new.end_of_models("models:\n    a:\n        b: 1\nother:\n  c: 2\n")
    assert (place, column) == (len("models:\n    a:\n        b: 1\n"), 4)


@pytest.mark.parametrize("text", ["models: {a: {b: 1}}\n", "models: {}\n"])
def test_models_in_braces_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="written as a block"):
        new.end_of_models(text)


def test_a_folder_with_splits(params: Path) -> None:
    folder = params.parent / "splits"
    folder.mkdir()
    write(folder / "train.csv", rows(100))
    write(folder / "test.csv", rows(40))
    new.new_recipe(params, "given", folder, "text-classification", GUESSED, None, None)
    splits = load_recipe(params, "given").data.splits
    assert splits.model_dump() == {"kind": "given", "train": "train.csv", "validation": 0.15, "test": "test.csv"}


@pytest.mark.parametrize(
    ("lengths", "language", "tokens"),
    [
        ([3, 10, 20, 30, 40], "en", 16),
        ([3, 40, 80, 100, 200], "en", 32),
        ([3, 40, 80, 100, 200], "fi", 48),
        ([9, 900, 4000, 5000, 9000], "en", 128),
    ],
)
def test_max_length_follows_the_texts(lengths: list[int], language: str, tokens: int) -> None:
    assert fitted(seen(lengths=lengths, language=language)).task.max_length == tokens


def test_fewer_rows_get_more_epochs_and_a_wider_margin() -> None:
    small, large, huge = (
        fitted(seen(rows=count, counts={"a": count // 2, "b": count // 2})) for count in (500, 15_000, 500_000)
    )
    assert small.distill.training.epochs > large.distill.training.epochs > huge.distill.training.epochs
    assert small.gate.max_accuracy_loss > large.gate.max_accuracy_loss > huge.gate.max_accuracy_loss > 1
    assert small.prune.technique == "structured" and small.prune.calibration_rows == 300


def test_the_class_bound_holds_for_the_data_as_it_is() -> None:
    recipe = fitted(seen(rows=100, counts={"a": 90, "b": 10}))
    assert 2 <= recipe.data.checks.class_count.min_rows <= 6
    assert fitted(seen(counts={"a": 999, "b": 1})).data.checks.class_count.min_rows == 2


def test_an_unclear_language_is_not_checked() -> None:
    assert fitted(seen(language=None)).data.checks.language is None


def test_data_elsewhere_is_named_by_its_full_path(params: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = write(tmp_path_factory.mktemp("elsewhere") / "t.csv", rows(60))
    new.new_recipe(params, "far", data, "text-classification", GUESSED, None, None)
    assert load_recipe(params, "far").data.source == data.as_posix()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("new") / "toy")


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("alpha", "text,label\na,x\n", 2, "RecipeError: params.yaml: there is a model 'alpha' already"),
        ("Bad Name", "text,label\na,x\n", 2, "RecipeError: 'Bad Name': no valid name"),
        ("fresh", None, 3, "DataError: data/new.csv: no such file"),
        ("fresh", "", 3, "DataError: data/new.csv: "),
        ("fresh", "a\x00b", 3, "DataError: data/new.csv: "),
        ("fresh", "one\nvalue\n", 3, "DataError: data/new.csv: "),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    project: Toy, name: str, content: str | None, code: int, message: str
) -> None:
    data, params = project.folder / "data" / "new.csv", project.folder / "params.yaml"
    data.unlink(missing_ok=True)
    if content is not None:
        data.write_text(content)
    before = params.read_bytes()
    found, output = project.flows("new", name, "--data", "data/new.csv", "--task", "text-classification")
    assert (found, output.count("\n")) == (code, 1), output
    assert output.startswith(message)
    assert params.read_bytes() == before
    assert not list(project.folder.glob("*.partial"))


def test_from_the_command_line_to_a_plan(project: Toy) -> None:
    write(project.folder / "data" / "orders.csv", rows(80))
    code, output = project.flows("new", "orders", "--data", "data/orders.csv", "--task", "text-classification")
    assert code == 0, output
    columns = ("--text-column", "label", "--target-column", "text")
    code, output = project.flows("new", "backwards", "--data", "data/orders.csv", "--task", "text-to-text", *columns)
    assert code == 0 and "text in 'label', answers in 'text'" in output, output
    assert "validate@orders: never run" in project.flows("build", "orders", "--plan")[1]


def test_a_broken_params_file_is_named_and_left_alone(params: Path) -> None:
    text = re.sub(r"epochs: \d+", "epochs: many", params.read_text(), count=1)
    params.write_text(text)
    with pytest.raises(RecipeError, match=r"params\.yaml: models\.support-intents\..*epochs.*'many'"):
        new.new_recipe(
            params, "tickets", write(params.parent / "t.csv", rows(60)), "text-classification", GUESSED, None, None
        )
    assert params.read_text() == text


def sequence_rows(path: Path, count: int = 60) -> Path:
    """Texts with an answer and a tag a word, under names that say so."""
    lines = [
        f"{text},{text.split()[0]} it is,{' '.join(['B-WORD', *['O'] * (len(text.split()) - 1)])}"
        for text, _ in rows(count)
    ]
    path.write_text("\n".join(["message,summary,tags", *lines]) + "\n")
    return path


@pytest.mark.parametrize("task", TASKS[1:])
def test_a_recipe_of_every_task_fits_the_file_and_explains_itself(params: Path, task: str) -> None:
    before = params.read_bytes()
    new.new_recipe(params, "fresh", sequence_rows(params.parent / "t.csv"), task, GUESSED, None, None)
    recipe = load_recipe(params, "fresh")
    assert isinstance(recipe, RECIPES[task]) and recipe.task.type == task
    second = {"token-classification": "tags", "text-to-text": "summary", "text-generation": None}[task]
    assert (recipe.data.text_column, recipe.data.second_column) == ("message", second)
    assert recipe.prune.calibration_rows <= 48
    block = params.read_bytes()[len(before) :].decode().splitlines()
    keys = [at for at, line in enumerate(block) if at and not line.strip().startswith("#")]
    assert len(keys) > 60
    for at in keys:
        assert "  # " in block[at] or block[at - 1].strip().startswith("# "), block[at]


def test_the_answers_lengths_are_fitted_too() -> None:
    template = yaml.safe_load((new.TEMPLATES / "text-to-text.yaml").read_text())
    short, long = (
        RECIPES["text-to-text"].model_validate(
            recipe_for(seen(second_lengths=[1, 5, 10, most, most]), template, "x", 2)
        )
        for most in (20, 120)
    )
    assert short.task.max_target_length < long.task.max_target_length <= 64  # type: ignore[attr-defined]
    few, many = (
        recipe_for(seen(rows=count), template, "x", 2)["teach"]["training"]["epochs"] for count in (500, 50_000)
    )
    assert few > many


def test_every_task_has_a_template_that_its_recipe_takes() -> None:
    assert set(TASKS) == set(RECIPES) == set(SECOND_KEYS)
    for task in TASKS:
        RECIPES[task].model_validate(yaml.safe_load((new.TEMPLATES / f"{task}.yaml").read_text()))


def test_named_columns_are_taken(params: Path) -> None:
    data = sequence_rows(params.parent / "t.csv")
    new.new_recipe(params, "fresh", data, "text-to-text", Columns("summary", {"target_column": "message"}), None, None)
    found = load_recipe(params, "fresh").data
    assert (found.text_column, found.second_column) == ("summary", "message")


@pytest.mark.parametrize(
    ("task", "key", "message"),
    [
        (
            "text-to-text",
            "label_column",
            "--label-column: a recipe of text-to-text has no such column; use --target-column",
        ),
        (
            "text-generation",
            "tags_column",
            "--tags-column: a recipe of text-generation has no such column; its texts are all",
        ),
    ],
)
def test_a_column_of_another_task_is_refused(params: Path, task: str, key: str, message: str) -> None:
    data = sequence_rows(params.parent / "t.csv")
    with pytest.raises(RecipeError, match=re.escape(message)):
        new.new_recipe(params, "fresh", data, task, Columns(None, {key: "tags"}), None, None)
