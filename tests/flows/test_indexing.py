"""One model's plan from its own stages alone is the plan from the whole of DVC's index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from flows import graph
from flows.errors import GraphError
from flows.graph import make_plan
from flows.indexing import _meets, index_for
from tests.flows.toy import REPOSITORY, STAGES, Toy, run


def loaded(folder: Path, model: str | None) -> list[str]:
    """The names of the stages that are read for a model's plan."""
    with Repo(str(folder)) as repo:
        return sorted(getattr(stage, "name", None) or stage.relpath for stage in index_for(repo, model).stages)


def rewire(toy: Toy, change: Callable[[dict[str, Any]], None]) -> None:
    path = toy.folder / "dvc.yaml"
    wiring = yaml.safe_load(path.read_text())
    change(wiring["stages"])
    path.write_text(yaml.safe_dump(wiring, sort_keys=False))


def reading(toy: Toy, stage: str, *paths: str) -> None:
    rewire(toy, lambda stages: stages[stage]["do"]["deps"].extend(paths))


def tracked(toy: Toy) -> None:
    run(["git", "rm", "-q", "--cached", "data/alpha.csv"], toy.folder)
    toy.dvc("add", "-q", "data/alpha.csv")


def elsewhere(toy: Toy) -> None:
    """A stage of no model, in a folder of its own, that writes what a model reads."""
    (toy.folder / "words").mkdir()
    stage = {"cmd": "echo x > list.txt", "outs": ["list.txt"]}
    (toy.folder / "words" / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"collect": stage}}))
    reading(toy, "label", "words/list.txt")


def alone(toy: Toy) -> None:
    """A stage of dvc.yaml that is no model's."""
    rewire(toy, lambda stages: stages.update(collect={"cmd": "echo x > list.txt", "outs": ["list.txt"]}))
    reading(toy, "teach", "list.txt")


def rewritten(change: Callable[[str], str]) -> Callable[[Toy], Any]:
    """dvc.lock, otherwise than DVC writes it."""

    def apply(toy: Toy) -> None:
        path = toy.folder / "dvc.lock"
        path.write_text(change(path.read_text()))

    return apply


def flowing(text: str) -> str:
    return f"schema: '2.0'\nstages: {json.dumps(yaml.safe_load(text)['stages'])}\n"


CASES: dict[str, Callable[[Toy], Any]] = {
    "as it was built": lambda toy: None,
    "a value": lambda toy: toy.change("alpha", "teach", "label_smoothing", 0.25),
    "a key that is new": lambda toy: toy.change("alpha", "teach", "more", [1, {"a": 2}]),
    "another's value": lambda toy: toy.change("beta", "teach", "label_smoothing", 0.25),
    "no output": lambda toy: (toy.folder / "build" / "alpha" / "teacher").unlink(),
    "a file of DVC's": tracked,
    "a stage elsewhere": elsewhere,
    "a stage of no model": alone,
    "no record": lambda toy: (toy.folder / "dvc.lock").unlink(),
    "another model's output": lambda toy: reading(toy, "label", "build/beta/teacher"),
    "within another model's output": lambda toy: reading(toy, "label", "build/beta/teacher/weights"),
    "a folder of many models": lambda toy: reading(toy, "gate", "build"),
    "a record in another order": rewritten(lambda text: text.removeprefix("schema: '2.0'\n") + "schema: '2.0'\n"),
    "a record with more in it": rewritten(lambda text: text + "datasets: []\n"),
    "a record on one line": rewritten(flowing),
}


@pytest.mark.parametrize("case", [case for case in CASES if case != "a folder of many models"])
def test_the_plan_is_that_of_the_whole_index(built: Toy, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    CASES[case](built)
    found = make_plan(built.folder, "alpha")
    monkeypatch.setattr(graph, "index_for", lambda repo, model: repo.index)
    assert found == make_plan(built.folder, "alpha")
    assert len(found.steps) >= len(STAGES)


@pytest.mark.parametrize("case", CASES)
def test_another_models_stages_are_read_only_where_they_matter(built: Toy, case: str) -> None:
    CASES[case](built)
    matter = case in ("another model's output", "within another model's output", "a folder of many models")
    assert any(name.endswith("@beta") for name in loaded(built.folder, "alpha")) == matter


def test_a_folder_of_its_own_outputs_is_none_of_anothers(built: Toy) -> None:
    reading(built, "gate", "build/alpha/evaluation")
    assert loaded(built.folder, "alpha") == sorted(f"{stage}@alpha" for stage in STAGES)


def test_a_record_that_dvc_cannot_read_is_its_error(built: Toy) -> None:
    record = built.folder / "dvc.lock"
    record.write_text(record.read_text().replace("cmd: python tool.py teach alpha", "cmd: [python"))
    with pytest.raises(GraphError, match=r"dvc\.lock"):
        make_plan(built.folder, "alpha")


def test_no_model_or_none_that_is_there_is_everything(built: Toy) -> None:
    assert len(loaded(built.folder, None)) == len(loaded(built.folder, "gamma")) == 2 * len(STAGES)


def test_the_projects_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    models = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["models"]
    alone = {model: make_plan(REPOSITORY, model) for model in models}
    for model in models:
        assert {name.partition("@")[2] for name in loaded(REPOSITORY, model) if "@" in name} == {model}
    monkeypatch.setattr(graph, "index_for", lambda repo, model: repo.index)
    assert alone == {model: make_plan(REPOSITORY, model) for model in models}


@pytest.mark.parametrize(
    ("place", "template", "meets"),
    [
        ("build/beta/data", "build/${key}/data", True),
        ("build/alpha/data", "build/${key}/data", False),
        ("build/beta/data/rows", "build/${key}/data", True),
        ("build/beta", "build/${key}/data", True),
        ("build/alpha", "build/${key}/data", False),
        ("build", "build/${key}/data", True),
        ("data/beta.csv", "build/${key}/data", False),
        ("build/beta/signals", "build/${key}/data", False),
        ("out/beta-small.json", "out/${key}-small.json", True),
        ("out/alpha-small.json", "out/${key}-small.json", False),
        ("kept/x", "kept/${item.name}/${key}", True),
        ("kept", "kept/${item.name}/${key}", True),
        ("data/x", "kept/${item.name}/${key}", False),
        ("data/x", "${item}", True),
    ],
)
def test_where_a_path_may_be_another_models(place: str, template: str, meets: bool) -> None:
    assert _meets(place, template, "alpha") == meets
