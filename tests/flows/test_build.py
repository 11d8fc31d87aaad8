"""The flow on a toy project: real Prefect server, real DVC."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.states import State
from slm_registry import Registry

from flows.build import build
from flows.errors import BadInput, GateFailed, GraphError, PublishError, StageFailed, Transient
from flows.graph import make_plan
from flows.stage import run_stage
from flows.standing import UP_TO_DATE, BuildResult
from pipelines.errors import RecipeError
from tests.flows.toy import STAGES, Toy, wait_for

pytestmark = pytest.mark.usefixtures("api")
Inside = Callable[[Toy], Toy]


def run(model: str = "alpha", **arguments: Any) -> State[Any]:
    state = build(model, **arguments, return_state=True)
    assert isinstance(state, State)
    return state


def result_of(state: State[Any]) -> BuildResult:
    result = state.result(raise_on_failure=False)
    assert isinstance(result, BuildResult), state
    return result


def flow_run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    found: UUID = state.state_details.flow_run_id
    return found


def task_states(state: State[Any], names: set[str]) -> dict[str, tuple[str, str | None]]:
    """Task run name -> state name and message, once the server has heard of all of them."""

    def finished() -> dict[str, tuple[str, str | None]] | None:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id(state)])))
        found = {
            run.name: (run.state.name, run.state.message)
            for run in runs
            if run.state and run.state.name not in ("Running", "Pending")
        }
        return found if set(found) >= names else None

    found: dict[str, tuple[str, str | None]] = wait_for(finished)
    return found


def artifacts_of(state: State[Any]) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id(state)]))
        )
    return {str(one.key): one.data for one in found}


def logs_of(state: State[Any]) -> str:
    """All log lines of a run; the last of them says so."""

    def whole() -> str | None:
        with get_client(sync_client=True) as client:
            found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id(state)])))
        text = "\n".join(log.message for log in found)
        return text if f"Finished in state {state.name}" in text.replace("Finished in state Built", "") else None

    text: str = wait_for(whole)
    return text


def versions(store: Path, model: str = "alpha") -> list[str]:
    return [row.version for row in Registry(store).list(model)]


def test_first_build_then_again(toy: Toy, inside: Inside) -> None:
    """All stages run once and are published; run again, nothing is run and nothing is published twice."""
    inside(toy)
    first = run(publish="store")
    assert first.type == StateType.COMPLETED
    result = result_of(first)
    assert result.outcomes == {f"{stage}@alpha": "Built" for stage in STAGES}
    assert result.publication is not None
    assert (result.publication.version, result.publication.created) == ("1.0.0", True)
    ran = toy.ran()
    assert sorted(ran) == sorted(STAGES)
    assert (ran[0], ran[-2:]) == ("validate", ["evaluate", "gate"])
    assert toy.ran("beta") == []
    _page_shows_everything(first)

    second = run(publish="store")
    assert "skipping" not in logs_of(second), "what is up to date costs no process"
    again = result_of(second)
    assert again.outcomes == {f"{stage}@alpha": "Up to date" for stage in STAGES}
    assert again.publication is not None
    assert (again.publication.version, again.publication.created) == ("1.0.0", False)
    assert toy.ran() == []
    assert versions(toy.folder / "store") == ["1.0.0"]
    assert toy.dvc("status").strip() == _beta_alone(toy), "the flow left what `dvc repro` would have left"


def _beta_alone(toy: Toy) -> str:
    return toy.dvc("status", *(f"{stage}@beta" for stage in STAGES)).strip()


def _page_shows_everything(state: State[Any]) -> None:
    names = {f"{stage} · alpha" for stage in (*STAGES, "publish")}
    found = task_states(state, names)
    assert {name: found[name][0] for name in names} == {
        name: "Completed" if "publish" in name else "Built" for name in names
    }
    artifacts = artifacts_of(state)
    stages = {f"stage-{stage}-alpha" for stage in STAGES}
    assert set(artifacts) == {"plan-alpha", "metrics-alpha", "report-alpha", "build-alpha", "publish-alpha"} | stages
    assert "**teach@alpha**: built, used " in artifacts["stage-teach-alpha"]
    assert "build/alpha/teacher) | 34 |" in artifacts["stage-teach-alpha"]
    assert "alpha 1.0.0 (sha256:" in artifacts["publish-alpha"]
    assert "| `teach@alpha` | never run |" in artifacts["plan-alpha"]
    rows = {row["measure"]: row for row in json.loads(artifacts["metrics-alpha"])}
    assert rows["accuracy"] == {"measure": "accuracy", "teacher": 0.9, "model": 0.9}
    assert rows["comparison.size_ratio"]["model"] == 18.0
    assert rows["classes"]["model"] == "3 entries"
    assert "build/alpha/evaluation/report.html" in artifacts["report-alpha"]
    logs = logs_of(state)
    assert "> python tool.py teach alpha build/alpha/teacher" in logs
    assert "git add" not in logs


def test_the_record_that_is_published(built: Toy, inside: Inside) -> None:
    inside(built)
    assert run(publish="store").is_completed()
    lineage = Registry(built.folder / "store").show("alpha@candidate").lineage
    assert len(lineage["git"]["commit"]) == 40
    assert lineage["git"]["dirty"] is False, "a dvc.lock that the build wrote is no change of the code"
    assert len(lineage["dvc_lock_sha256"]) == 64
    assert lineage["recipe"]["teach"]["mode"] == "finetune"
    assert (lineage["data_sha256"], lineage["teacher"]["sha256"]) == ("d" * 64, "e" * 64)
    assert lineage["metrics"]["comparison"]["latency_ratio"] == 15.0
    assert lineage["environment"] == {"torch": "2"}


def test_without_publish_nothing_is_published(built: Toy, inside: Inside) -> None:
    inside(built)
    assert result_of(run()).publication is None
    assert not (built.folder / "store").exists()


def test_a_change_runs_what_follows_from_it_alone(built: Toy, inside: Inside) -> None:
    inside(built)
    built.change("alpha", "label", "batch_size", 8)
    outcomes = result_of(run()).outcomes
    assert built.ran() == ["label"], "label wrote the same bytes, so nothing below it ran"
    assert outcomes == {
        "validate@alpha": "Up to date",
        "teach@alpha": "Up to date",
        "label@alpha": "Built",
        "evaluate@alpha": "Up to date",
        "gate@alpha": "Up to date",
    }


def test_what_was_built_before_comes_back_from_the_run_cache(built: Toy, inside: Inside) -> None:
    inside(built)
    (built.folder / "build" / "alpha" / "teacher").unlink()
    assert result_of(run()).outcomes["teach@alpha"] == "Restored"
    assert built.ran() == []


def test_plan_only_runs_nothing(toy: Toy, inside: Inside) -> None:
    inside(toy)
    state = run(plan_only=True)
    assert state.is_completed()
    assert toy.ran() == []
    assert set(artifacts_of(state)) == {"plan-alpha"}


def test_up_to_a_stage_nothing_is_a_task_either_where_nothing_is_stale(built: Toy, inside: Inside) -> None:
    inside(built)
    built.change("alpha", "gate", "max_bytes", 5)
    state = run(until="label")
    assert state.name == UP_TO_DATE and result_of(state).publication is None
    assert set(artifacts_of(state)) == {"plan-alpha"}


def test_a_failed_gate_publishes_nothing_and_is_not_tried_again(built: Toy, inside: Inside) -> None:
    inside(built)
    built.behave("gate", "fail GateError: accuracy 0.90 misses 0.95 by 0.05")
    built.change("alpha", "gate", "max_bytes", 5)
    state = run(publish="store")
    assert state.type == StateType.FAILED
    assert state.message == "GateFailed: gate@alpha: GateError: accuracy 0.90 misses 0.95 by 0.05"
    assert isinstance(state.result(raise_on_failure=False), GateFailed)
    assert built.ran() == ["gate"]
    assert not (built.folder / "store").exists()
    assert (built.folder / "build/alpha/evaluation/metrics.json").exists(), "the metrics are kept"
    assert {"metrics-alpha", "report-alpha"} <= set(artifacts_of(state)), "and shown"
    assert "Traceback" not in logs_of(state)


def test_a_budget_that_cannot_be_met_shows_no_metrics_of_an_earlier_build(built: Toy, inside: Inside) -> None:
    inside(built)
    built.behave("label", "fail BudgetError: no point holds max_bytes 1,000 bytes")
    built.change("alpha", "label", "batch_size", 8)
    state = run(publish="store")
    assert state.message == "GateFailed: label@alpha: BudgetError: no point holds max_bytes 1,000 bytes"
    assert (built.folder / "build/alpha/evaluation/metrics.json").exists(), "of the build before"
    assert not {"metrics-alpha", "report-alpha"} & set(artifacts_of(state))


@pytest.mark.parametrize(
    ("order", "expected"), [("fail DataError: data/alpha.csv: no column 'text'", BadInput), ("crash boom", StageFailed)]
)
def test_what_cannot_pass_is_tried_once_and_stops_what_is_below(
    toy: Toy, inside: Inside, order: str, expected: type[Exception]
) -> None:
    inside(toy)
    toy.behave("validate", order)
    error = run().result(raise_on_failure=False)
    assert type(error) is expected
    assert toy.ran() == ["validate"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second and third tries come without delay."""
    monkeypatch.setattr(run_stage, "retry_delay_seconds", [0, 0])


@pytest.mark.usefixtures("at_once")
def test_what_may_pass_is_tried_again(built: Toy, inside: Inside) -> None:
    inside(built)
    built.behave("gate", "once TransientError: hub.example: 503")
    built.change("alpha", "gate", "max_bytes", 5)
    state = run()
    assert state.is_completed()
    assert built.ran() == ["gate", "gate"]


@pytest.mark.usefixtures("at_once")
def test_retries_end(built: Toy, inside: Inside) -> None:
    inside(built)
    built.behave("gate", "fail TransientError: hub.example: 503")
    built.change("alpha", "gate", "max_bytes", 5)
    state = run()
    assert isinstance(state.result(raise_on_failure=False), Transient)
    assert built.ran() == ["gate"] * 3
    assert "Traceback" not in logs_of(state)


def test_stages_that_do_not_need_each_other_run_at_once(built: Toy, inside: Inside) -> None:
    inside(built)
    for stage, key, value in (("teach", "label_smoothing", 0.2), ("label", "batch_size", 8)):
        built.behave(stage, "sleep 2")
        built.change("alpha", stage, key, value)
    state = run()
    with get_client(sync_client=True) as client:
        runs: list[TaskRun] = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id(state)]))
        )
    spans = {one.name: (one.start_time, one.end_time) for one in runs if one.name in ("teach · alpha", "label · alpha")}
    (teach_start, teach_end), (label_start, label_end) = spans["teach · alpha"], spans["label · alpha"]
    assert teach_start and teach_end and label_start and label_end
    assert max(teach_start, label_start) < min(teach_end, label_end)


def test_a_bundle_without_its_origin_is_not_published(built: Toy, inside: Inside) -> None:
    inside(built)
    path = built.folder / "tool.py"
    path.write_text(path.read_text().replace('"data_sha256": "d" * 64, ', ""))
    built.change("alpha", "evaluate", "threads", 3)
    state = run(publish="store")
    error = state.result(raise_on_failure=False)
    assert isinstance(error, PublishError)
    assert "data_sha256 missing" in str(error)
    assert not (built.folder / "store").exists()


def test_an_impossible_recipe_fails_before_any_work(toy: Toy, inside: Inside) -> None:
    inside(toy)
    toy.change("alpha", "gate", "no_such_bound", 1)
    error = run().result(raise_on_failure=False)
    assert isinstance(error, RecipeError)
    assert "no_such_bound" in str(error)
    assert toy.ran() == []


def test_a_model_without_stages(toy: Toy, inside: Inside) -> None:
    inside(toy)
    path = toy.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("foreach: ${models}", "foreach: [beta]").replace("${key}", "${item}"))
    assert isinstance(run().result(raise_on_failure=False), GraphError)


def test_the_flows_tasks_are_dvcs_stages(built: Toy, inside: Inside) -> None:
    """Nodes and edges, as the Prefect page has them, are those of DVC's graph."""
    inside(built)
    built.change("alpha", "gate", "max_bytes", 5)
    state = run()
    plan = make_plan(built.folder, "alpha")
    task_states(state, {f"{stage} · alpha" for stage in STAGES})
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id(state)])))
    names = {one.id: one.name.replace(" · ", "@") for one in runs}
    edges = {
        (names[above.id], names[one.id])
        for one in runs
        for above in one.task_inputs.get("wait_for", [])
        if hasattr(above, "id")
    }
    assert set(names.values()) == {step.node.name for step in plan.steps}
    assert edges == plan.edges


@pytest.mark.parametrize("history", ["no commit", "no git"])
def test_without_git_history(built: Toy, inside: Inside, history: str) -> None:
    shutil.rmtree(built.folder / ".git")
    if history == "no commit":
        subprocess.run(["git", "init", "-q", "."], cwd=built.folder, check=True)
    else:
        (built.folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    inside(built)
    assert run(publish="store").is_completed()
    assert Registry(built.folder / "store").show("alpha@candidate").lineage["git"] == {"commit": None, "dirty": None}


def test_a_name_that_is_no_recipes_touches_nothing(toy: Toy, inside: Callable[[Toy], Toy], tmp_path: Path) -> None:
    """Locks and receipts bear the model's name: it must be one before they are opened."""
    inside(toy)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "x.build.lock").write_text("keep")
    state = build("../../../../victim/x", return_state=True)
    assert state.is_failed() and "no model" in str(state.message)
    assert (tmp_path / "victim" / "x.build.lock").read_text() == "keep"
