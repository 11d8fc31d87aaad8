"""The same flow as a deployment: real server, process pool, worker; run, look at its page, cancel, kill the worker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from slm_registry import Registry

from tests.flows.toy import REPOSITORY, STAGES, Toy, environment, wait_for

NAME = "build/support-intents"


def prefect(toy: Toy, *arguments: str) -> str:
    """Run one Prefect command in the project, as docs/flows.md says."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=toy.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_worker(toy: Toy) -> subprocess.Popen[bytes]:
    with (toy.folder / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "factory", "--name", "tester"]
        return subprocess.Popen(
            command, cwd=toy.folder, env=environment() | {"PREFECT_WORKER_QUERY_SECONDS": "1"}, stdout=log, stderr=log
        )


@pytest.fixture(scope="module")
def deployed(api: str, _built_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """The toy with the project's own prefect.yaml deployed for its model alpha, and a worker running."""
    toy = Toy(tmp_path_factory.mktemp("deployed") / "toy")
    shutil.copytree(_built_template, toy.folder)
    wiring = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    wiring["deployments"][0]["parameters"]["model"] = "alpha"
    wiring["deployments"][0]["schedules"][0]["cron"] = (
        "0 3 1 1 *"  # not at three, or these tests may get a run too many
    )
    (toy.folder / "prefect.yaml").write_text(yaml.safe_dump(wiring))
    (toy.folder / "flows").symlink_to(REPOSITORY / "flows")
    prefect(toy, "work-pool", "create", "factory", "--type", "process")
    prefect(toy, "--no-prompt", "deploy", "--all")
    worker = start_worker(toy)
    try:
        yield toy
    finally:
        worker.terminate()
        worker.wait()
        for process in toy.processes():
            process.kill()


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as one:
        yield one


def launch(client: SyncPrefectClient) -> UUID:
    run: UUID = client.create_flow_run_from_deployment(client.read_deployment_by_name(NAME).id).id
    return run


def until(client: SyncPrefectClient, run: UUID, toy: Toy, *states: str, seconds: float = 60) -> FlowRun:
    """Wait until a run is in one of these states; the worker's log explains a failure."""

    def look() -> FlowRun | None:
        found = client.read_flow_run(run)
        return found if found.state_name in states else None

    try:
        found: FlowRun = wait_for(look, seconds)
    except AssertionError as error:
        raise AssertionError(f"{client.read_flow_run(run).state}\n{(toy.folder / 'worker.log').read_text()}") from error
    return found


def log_lines(client: SyncPrefectClient, run: UUID) -> list[str]:
    return [log.message for log in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)]


def test_the_schedule_plans_its_next_run(deployed: Toy, client: SyncPrefectClient) -> None:
    planned = FlowRunFilter(state={"type": {"any_": ["SCHEDULED"]}}, tags={"all_": ["auto-scheduled"]})
    build = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(NAME).id]))
    runs = wait_for(lambda: client.read_flow_runs(flow_run_filter=planned, deployment_filter=build), 90)
    first = min(run.expected_start_time for run in runs if run.expected_start_time)
    assert (first.month, first.day, first.hour) == (1, 1, 3)


def test_a_run_completes_with_logs_and_artifacts(deployed: Toy, client: SyncPrefectClient) -> None:
    deployed.change("alpha", "gate", "max_bytes", 5)
    run = launch(client)
    until(client, run, deployed, "Published")
    assert deployed.ran() == ["gate"]
    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    assert {one.key for one in artifacts} >= {
        "plan-alpha",
        "metrics-alpha",
        "report-alpha",
        "build-alpha",
        "publish-alpha",
    }
    # logs arrive in batches, a little after the state
    wait_for(lambda: "> python tool.py gate alpha build/alpha/gate.json" in log_lines(client, run), 10)
    names = {one.name for one in client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))}
    assert names == {f"{stage} · alpha" for stage in (*STAGES, "publish")}
    assert [row.version for row in Registry(deployed.folder / "store").list("alpha")] == ["1.0.0"]


def test_the_deployment_is_as_prefect_yaml_says(deployed: Toy, client: SyncPrefectClient) -> None:
    found = client.read_deployment_by_name(NAME)
    planned = yaml.safe_load((deployed.folder / "prefect.yaml").read_text())["deployments"][0]["schedules"]
    assert [(one.schedule.cron, one.active) for one in found.schedules] == [(one["cron"], True) for one in planned]
    assert found.work_pool_name == "factory"
    assert found.global_concurrency_limit and found.global_concurrency_limit.limit == 1
    assert found.concurrency_options and found.concurrency_options.collision_strategy == "CANCEL_NEW"
    described = found.parameter_openapi_schema["properties"]
    assert set(described) == {"model", "publish", "alias", "plan_only", "until", "workers", "commit", "push", "update"}
    assert all(one["description"] for one in described.values())


def nap(toy: Toy) -> psutil.Process | None:
    return next((one for one in toy.processes() if "nap of" in " ".join(one.cmdline())), None)


def asleep(toy: Toy, client: SyncPrefectClient, value: int) -> UUID:
    """Start a run and wait until its gate stage sleeps."""
    toy.behave("gate", "sleep 90")
    toy.change("alpha", "gate", "max_bytes", value)
    run = launch(client)
    until(client, run, toy, "Running")
    wait_for(lambda: nap(toy), 40)
    return run


def test_a_second_run_gives_way_and_a_cancelled_one_leaves_no_process(deployed: Toy, client: SyncPrefectClient) -> None:
    run = asleep(deployed, client, 6)
    second = until(client, launch(client), deployed, "Cancelled")
    assert second.state and "concurrency" in (second.state.message or "")
    client.set_flow_run_state(run, Cancelling())
    until(client, run, deployed, "Cancelled", seconds=30)
    wait_for(lambda: not [one for one in deployed.processes() if "worker" not in one.cmdline()], 15)
    assert deployed.ran()[-1] == "gate"


def test_a_killed_worker_leaves_no_process(deployed: Toy, client: SyncPrefectClient) -> None:
    asleep(deployed, client, 7)
    worker = next(one for one in deployed.processes() if "worker" in one.cmdline())
    worker.kill()
    wait_for(lambda: not deployed.processes(), 25)


def test_no_module_here_bears_the_name_of_a_package() -> None:
    """A file entry point puts flows/ first on sys.path: such a module would hide the package, silently."""
    from importlib.metadata import packages_distributions

    ours = {path.stem for path in (REPOSITORY / "flows").glob("*.py")} - {"__init__", "__main__"}
    others = (
        set(packages_distributions())
        | set(sys.stdlib_module_names)
        | {path.parent.name for path in REPOSITORY.glob("*/*.py")}
    )
    assert ours
    assert not ours & others
