"""The section `teach` of mode api: what it refuses, and what it does not repeat."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.config import ApiTeacher, load_params
from pipelines.environment import ROOT
from pipelines.errors import RecipeError
from tests.pipelines.remote_teacher.conftest import settings
from tests.recipes import RECIPE
from tests.sequence_recipes import sequence_recipe

TEXTS = {"rows": 1, "prompt_tokens": 1, "max_new_tokens": 1, "temperature": 0, "replace": True}
ON_POLICY = {"share": 0.5, "prompt_tokens": 1, "max_new_tokens": 1, "temperature": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "models.example/v1"}, "write it as https://host/v1"),
        ({"url": "ftp://models.example/v1"}, "write it as https://host/v1"),
        ({"url": "https://me:secret@models.example/v1"}, "the key belongs into key_variable"),
        ({"url": "https://models.example/v1?key=secret"}, "the key belongs into key_variable"),
        ({"url": "http://models.example/v1"}, "would send the key in the clear"),
        ({"sampling": {"answers": 2, "temperature": 0.0}}, "all of a row's would be the same"),
        ({"prompt_file": "/etc/passwd"}, "inside the project"),
        ({"prompt_file": "../prompt.txt"}, "inside the project"),
        ({"store": "build/answers"}, "lies where builds are removed"),
        ({"store": "."}, "lies where builds are removed"),
        ({"max_cost": float("inf")}, "finite"),
        ({"max_cost": -1}, "greater than or equal to 0"),
        ({"retries": {"tries": 0}}, "greater than or equal to 1"),
    ],
)
def test_impossible_values(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ApiTeacher.model_validate(settings(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://127.0.0.1:8000/v1"},
        {"url": "http://localhost:8000/v1/"},
        {"url": "http://models.example/v1", "key_variable": None},
    ],
)
def test_http_where_it_gives_nothing_away(change: dict[str, Any]) -> None:
    assert not ApiTeacher.model_validate(settings(**change)).url.endswith("/")


def test_every_value_is_wanted() -> None:
    for name in ApiTeacher.model_fields:
        with pytest.raises(ValidationError, match=name):
            ApiTeacher.model_validate({key: value for key, value in settings().items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"key_variable": "sk-secret-in-the-recipe"},
        {"api_key": "sk-secret-in-the-recipe"},
        {"key": "sk-secret-in-the-recipe"},
        {"token": "sk-secret-in-the-recipe"},
        {"url": "https://me:sk-secret-in-the-recipe@models.example/v1"},
    ],
)
def test_a_key_in_the_recipe_is_refused_and_not_repeated(tmp_path: Path, change: dict[str, str]) -> None:
    block = {"task": {"type": "text-to-text"}, "teach": settings(**change)}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"models": {"m": block}}), encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"teach\.(api\.)?{next(iter(change))}: .*not shown") as caught:
        load_params(path)
    assert "sk-secret" not in str(caught.value)


def test_the_recipe_in_the_documents_is_valid() -> None:
    page = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert set(yaml.safe_load(block)["teach"]) == set(ApiTeacher.model_fields)
    ApiTeacher.model_validate(yaml.safe_load(block)["teach"])


@pytest.mark.parametrize("task", ["text-generation", "text-to-text"])
@pytest.mark.parametrize("change", [{}, {"distill__on_policy": ON_POLICY}, {"label__texts": TEXTS}])
def test_its_learner_serves_whatever_a_local_teacher_serves(task: str, change: dict[str, Any]) -> None:
    assert isinstance(sequence_recipe(task, teach=settings(), **change).teach, ApiTeacher)


@pytest.mark.parametrize("mode", ["ready", "api"])
def test_a_learner_learns(mode: str) -> None:
    with pytest.raises(ValidationError, match=rf"learner\n.*'{mode}'.* does not match .*'scratch', 'finetune'"):
        ApiTeacher.model_validate(settings(learner={"mode": mode}))


def test_tags_are_no_texts() -> None:
    with pytest.raises(ValidationError, match=r"teach\.mode is api, whose answers are texts; tags need one of"):
        sequence_recipe("token-classification", teach=settings())


def test_labels_are_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"models": {"m": RECIPE | {"teach": settings()}}}), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"teach\.mode: 'api': Input should be '"):
        load_params(path)
