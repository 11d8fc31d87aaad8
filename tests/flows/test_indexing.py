"""One model's plan from its own stages alone is the plan from the whole of DVC's index."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from flows import graph
from flows.errors import GraphError
from flows.graph import Plan, Reason, Step, make_plan
from flows.indexing import _meets, index_for
from tests.flows.toy import REPOSITORY, STAGES, Toy, run


def loaded(folder: Path, model: str | None) -> list[str]:
    """The names of the stages that are read for a model's plan."""
    with Repo(str(folder)) as repo:
        return sorted(getattr(stage, "name", None) or stage.relpath for stage in index_for(repo, model).stages)


def own_reasons(step: Step) -> list[Reason]:
    return [reason for reason in step.reasons if reason.kind != "upstream runs"]


def dvcs_status(folder: Path, plan: Plan) -> set[str]:
    """Of the stages of a plan, those that DVC's own status names."""
    with contextlib.chdir(folder), Repo() as repo:
        return set(repo.status(targets=[step.node.name for step in plan.steps]))


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


def tracking(toy: Toy, stage: str, *keys: object) -> None:
    rewire(toy, lambda stages: stages[stage]["do"]["params"].extend(keys))


ODD = "list: [1, {a: 2}]\nodd: {0: none}\neven: {x: {y: 1}}\n"


def odd_values(toy: Toy) -> None:
    """A list's item, a number as a key, and a file that is tracked as a whole: recorded, and read again."""
    (toy.folder / "odd.yaml").write_text(ODD)
    (toy.folder / "more.yaml").write_text("one: 1\ntwo: {three: 3}\n")
    tracking(toy, "label", {"odd.yaml": ["list.0", "odd", "even"]}, {"more.yaml": None})
    toy.dvc("repro", "-q", "gate@alpha")


def then(place: str, text: str) -> Callable[[Toy], Any]:
    def apply(toy: Toy) -> None:
        odd_values(toy)
        (toy.folder / place).write_text(text)

    return apply


def another_writes(toy: Toy, out: str) -> None:
    """A stage of each model that writes to `out`, as dvc.yaml has it, built for beta; alpha's label reads beta's."""
    stage = {"cmd": "mkdir -p kept/${key}/up && echo 'k: 1' > kept/${key}/up/x.yaml", "outs": [out]}
    rewire(toy, lambda stages: stages.update(up={"foreach": "${models}", "do": stage}))
    toy.dvc("repro", "-q", "up")


def with_a_file_of_stages(toy: Toy) -> None:
    """An output that DVC looks for stages in no more than in any other."""
    another_writes(toy, "kept/${key}/up")
    for model in ("alpha", "beta"):
        (toy.folder / "kept" / model / "up" / "dvc.yaml").write_text("stages: [")
    (toy.folder / "kept" / ".gitignore").unlink(missing_ok=True)
    for ignored in (toy.folder / "kept").glob("*/.gitignore"):
        ignored.unlink()


#: What DVC must be asked, or be followed in, by its own rules for values.
VALUES: dict[str, Callable[[Toy], Any]] = {
    "a value that is nowhere": lambda toy: tracking(toy, "teach", "models.${key}.teach.nowhere"),
    "odd values": odd_values,
    "a key with a dot": then("odd.yaml", ODD.replace("x: {y: 1}", "x.y: 1")),
    "a word for a number": then("odd.yaml", ODD.replace("0:", "'0':")),
    "another item of a list": then("odd.yaml", ODD.replace("[1", "[7")),
    "more in a file": then("more.yaml", "one: 1\ntwo: {three: 4}\nfour: 4\n"),
}
#: Dependencies of one model on what another's stage writes.
ANOTHERS: dict[str, Callable[[Toy], Any]] = {
    "another model's output": lambda toy: reading(toy, "label", "build/beta/teacher"),
    "within another model's output": lambda toy: reading(toy, "label", "build/beta/teacher/weights"),
    "from here": lambda toy: (another_writes(toy, "./kept/${key}/up"), reading(toy, "label", "kept/beta/up/x.yaml")),
    "a folder": lambda toy: (another_writes(toy, "kept/${key}/up/"), reading(toy, "label", "kept/beta/up/x.yaml")),
    "values": lambda toy: (
        another_writes(toy, "kept/${key}/up"),
        tracking(toy, "label", {"kept/beta/up/x.yaml": ["k"]}),
    ),
}
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
    "a folder of many models": lambda toy: reading(toy, "gate", "build"),
    "a record in another order": rewritten(lambda text: text.removeprefix("schema: '2.0'\n") + "schema: '2.0'\n"),
    "a record with more in it": rewritten(lambda text: text + "datasets: []\n"),
    "a record on one line": rewritten(flowing),
    "a file of stages in an output": with_a_file_of_stages,
    **VALUES,
    **ANOTHERS,
}


@pytest.mark.parametrize("case", [case for case in CASES if case != "a folder of many models"])
def test_the_plan_is_that_of_the_whole_index(built: Toy, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    CASES[case](built)
    found = make_plan(built.folder, "alpha")
    monkeypatch.setattr(graph, "index_for", lambda repo, model: repo.index)
    assert found == make_plan(built.folder, "alpha")
    assert len(found.steps) >= len(STAGES)
    assert {step.node.name for step in found.steps if own_reasons(step)} == dvcs_status(built.folder, found)


@pytest.mark.parametrize("case", CASES)
def test_another_models_stages_are_read_only_where_they_matter(built: Toy, case: str) -> None:
    CASES[case](built)
    matter = case in {*ANOTHERS, "a folder of many models"}
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
