"""The graph and the plan are DVC's own, read without writing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flows.errors import GraphError
from flows.graph import Plan, find_root, make_plan
from tests.flows.toy import MODELS, REPOSITORY, STAGES, Toy, environment, run


def reasons(plan: Plan) -> dict[str, list[str]]:
    return {step.node.name: [str(reason) for reason in step.reasons] for step in plan.steps if step.stale}


def dvc_graph(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    with contextlib.chdir(folder), Repo() as repo:  # DVC's own names depend on the current folder
        graph = repo.index.graph
        return {stage.addressing for stage in graph.nodes}, {
            (up.addressing, down.addressing) for down, up in graph.edges
        }


def test_nodes_and_edges_are_dvcs(built: Toy) -> None:
    plan = make_plan(built.folder)
    nodes, edges = dvc_graph(built.folder)
    assert nodes == {f"{stage}@{model}" for stage in STAGES for model in MODELS}
    assert {step.node.name for step in plan.steps} == nodes
    assert plan.edges == edges
    assert len(edges) == 5 * len(MODELS)


def test_the_projects_own_graph_is_dvcs() -> None:
    plan = make_plan(REPOSITORY)
    nodes, edges = dvc_graph(REPOSITORY)
    assert {step.node.name for step in plan.steps} == nodes
    assert plan.edges == edges
    assert nodes


def test_one_models_plan_holds_its_stages_alone_and_in_order(built: Toy) -> None:
    plan = make_plan(built.folder, "beta")
    names = [step.node.name for step in plan.steps]
    assert sorted(names) == sorted(f"{stage}@beta" for stage in STAGES)
    assert all(names.index(above) < names.index(below) for above, below in plan.edges)


def test_a_plan_up_to_a_stage_holds_what_it_needs_alone(built: Toy) -> None:
    plan = make_plan(built.folder, "alpha")
    assert [step.node.stage for step in plan.up_to("label", "alpha").steps] == ["validate", "label"]
    assert plan.up_to("gate", "alpha") == plan
    with pytest.raises(GraphError, match=r"no stage explore@alpha; the plan holds .*gate@alpha"):
        plan.up_to("explore", "alpha")


def test_a_file_that_dvc_tracks_is_a_node_above_the_stage_that_reads_it(built: Toy) -> None:
    run(["git", "rm", "-q", "--cached", "data/alpha.csv"], built.folder)
    built.dvc("add", "-q", "data/alpha.csv")
    plan = make_plan(built.folder, "alpha")
    assert plan.steps[0].node.name == "data/alpha.csv.dvc"
    assert ("data/alpha.csv.dvc", "validate@alpha") in plan.edges
    assert not plan.stale


def test_paths_come_out_of_the_graph(built: Toy) -> None:
    plan = make_plan(built.folder, "alpha")
    assert plan.metrics_file() == Path("build/alpha/evaluation/metrics.json")
    assert plan.out("bundle") == Path("build/alpha/bundle")
    assert plan.find("report.html") == Path("build/alpha/evaluation/report.html")
    assert make_plan(built.folder).find("bundle") is None, "two models have one each"
    with pytest.raises(GraphError, match="one output named 'nothing' is needed"):
        plan.out("nothing")


def test_never_run(toy: Toy) -> None:
    assert reasons(make_plan(toy.folder, "alpha")) == {f"{stage}@alpha": ["never run"] for stage in STAGES}


def test_nothing_stale(built: Toy) -> None:
    assert reasons(make_plan(built.folder)) == {}


def test_a_changed_value_is_named_with_both_values_and_what_follows_from_it(built: Toy) -> None:
    built.change("alpha", "teach", "label_smoothing", 0.25)
    assert reasons(make_plan(built.folder)) == {
        "teach@alpha": ["parameter changed: models.alpha.teach.label_smoothing (0.1 -> 0.25)"],
        "evaluate@alpha": ["upstream runs: teach@alpha"],
        "gate@alpha": ["upstream runs: evaluate@alpha"],
    }


def test_a_changed_file(built: Toy) -> None:
    (built.folder / "data" / "beta.csv").write_text("text,label\nother,x\n")
    found = reasons(make_plan(built.folder))
    assert found["validate@beta"] == ["dependency changed: data/beta.csv (modified)"]
    assert set(found) == {f"{stage}@beta" for stage in STAGES}


def test_a_missing_output(built: Toy) -> None:
    (built.folder / "build" / "alpha" / "gate.json").unlink()
    assert reasons(make_plan(built.folder)) == {"gate@alpha": ["output missing: build/alpha/gate.json"]}


def test_a_changed_output(built: Toy) -> None:
    (built.folder / "build" / "alpha" / "gate.json").write_text("edited")
    assert reasons(make_plan(built.folder)) == {"gate@alpha": ["output changed: build/alpha/gate.json (modified)"]}


def test_a_changed_command(built: Toy) -> None:
    path = built.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("tool.py gate", "tool.py  gate"))
    assert reasons(make_plan(built.folder)) == {f"gate@{model}": ["command changed"] for model in MODELS}


def test_a_stage_that_always_runs(built: Toy) -> None:
    path = built.folder / "dvc.yaml"
    wiring = yaml.safe_load(path.read_text())
    wiring["stages"]["gate"]["do"]["always_changed"] = True
    path.write_text(yaml.safe_dump(wiring))
    assert "always runs" in reasons(make_plan(built.folder))["gate@alpha"]


@pytest.mark.parametrize("order", ["parameter", "file", "output", "nothing"])
def test_what_the_plan_calls_fresh_dvc_does_not_run(built: Toy, order: str) -> None:
    if order == "parameter":
        built.change("alpha", "label", "batch_size", 8)
    elif order == "file":
        (built.folder / "data" / "alpha.csv").write_text("text,label\nnew,x\n")
    elif order == "output":
        (built.folder / "build" / "alpha" / "teacher").unlink()
    stale = {step.node.stage for step in make_plan(built.folder, "alpha").stale}
    built.dvc("repro", "-q")
    assert set(built.ran("alpha")) <= stale
    assert built.ran("beta") == []


def test_reading_changes_nothing(built: Toy) -> None:
    def state() -> dict[Path, tuple[int, bytes]]:
        files = [
            path
            for path in built.folder.rglob("*")
            if path.is_file() and ".dvc/tmp" not in str(path) and ".git/" not in str(path)
        ]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    make_plan(built.folder)
    assert state() == before


def test_unknown_model(built: Toy) -> None:
    with pytest.raises(GraphError, match="no stage of a model 'gamma'; there are: alpha, beta"):
        make_plan(built.folder, "gamma")


def test_broken_wiring_is_one_clear_line(built: Toy) -> None:
    (built.folder / "dvc.yaml").write_text("stages: [")
    with pytest.raises(GraphError, match=r"dvc\.yaml") as caught:
        make_plan(built.folder)
    assert "\n" not in str(caught.value)


def test_outside_a_project(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no \.dvc folder here or above"):
        find_root(tmp_path)


def test_the_plan_waits_for_dvcs_lock(built: Toy) -> None:
    held = "import sys, time; from dvc.repo import Repo, lock_repo\nwith Repo() as r, lock_repo(r): print('held', flush=True); time.sleep(4)"
    holder = subprocess.Popen(
        [sys.executable, "-c", held], cwd=built.folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert len(make_plan(built.folder).steps) == len(STAGES) * len(MODELS)
    assert holder.wait() == 0, "the plan came only after the lock was free"
