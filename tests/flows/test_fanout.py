"""The work of a stage in processes of this machine, by a real Prefect flow against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import clusters, fanout
from flows.clusters import Processes, cluster_of
from pipelines.errors import FanError
from pipelines.fanning import Serial
from tests.flows.local_clusters import CLUSTERS
from tests.flows.toy import REPOSITORY, environment, wait_for


def start(what: str, folder: Path, workers: str = "processes:2") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.flows.spreading", what, str(folder), workers]
    return subprocess.Popen(command, cwd=REPOSITORY, env=seeing_us(), stdout=subprocess.PIPE, text=True)


def seeing_us() -> dict[str, str]:
    """The tests' environment, with this repository before whatever else is on the path."""
    paths = [str(REPOSITORY), str(REPOSITORY / "registry"), os.environ.get("PYTHONPATH", "")]
    return environment() | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def outcomes(api: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of each case of tests/flows/spreading.py, one after the other in one process."""
    found, _ = start("killed", tmp_path_factory.mktemp("outcomes")).communicate(timeout=300)
    answers: list[dict[str, Any]] = json.loads(found.splitlines()[-1])
    return answers


def test_answers_come_in_order_and_an_error_in_its_turn_with_its_own_type(outcomes: list[dict[str, Any]]) -> None:
    as_told(outcomes[:4])
    assert "tests/flows/works.py" in outcomes[2]["notes"]


def test_a_worker_that_cannot_see_a_folder_names_it_and_itself(outcomes: list[dict[str, Any]]) -> None:
    assert outcomes[3]["said"].startswith("/nowhere/student: no such folder")


def test_a_killed_worker_is_one_line(outcomes: list[dict[str, Any]]) -> None:
    assert outcomes[4]["kind"] == "ResourceError"
    assert "a worker of processes:2 was killed from outside" in outcomes[4]["said"]


@pytest.mark.usefixtures("api")
def test_what_was_begun_for_nobody_is_ended(tmp_path: Path) -> None:
    found, _ = start("idle", tmp_path).communicate(timeout=60)
    assert json.loads(found.splitlines()[-1]) == {"got": ["one done"]}


@pytest.mark.usefixtures("api")
def test_the_same_files_answers_and_weights_in_one_process_and_in_two(tmp_path: Path) -> None:
    found, _ = start("same", tmp_path).communicate(timeout=300)
    answer = json.loads(found.splitlines()[-1])
    assert answer.pop("files") >= 4 * 3
    assert answer == {"exports": True, "records": True, "weights": True}


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_that_is_ended_takes_its_workers_along(number: int, tmp_path: Path) -> None:
    process = start("sleep", tmp_path)
    asleep = wait_for(lambda: [int(path.name.partition("-")[2]) for path in tmp_path.glob("asleep-*")], 60)
    process.send_signal(number)
    assert process.wait(15) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in asleep), 10)


def as_told(answers: list[dict[str, Any]]) -> None:
    refused, diverged, broken, blind = answers
    assert refused["got"] == ["one done", "two done"]
    assert (refused["kind"], refused["said"]) == ("ModelError", "model.onnx: differs from torch by 3.0")
    assert (diverged["kind"], diverged["said"]) == ("DivergedError", "the loss is nan; lower training.learning_rate")
    assert broken["kind"] == "KeyError"
    assert blind["kind"] == "ModelError" and "so says the worker on " in blind["said"]


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_of_two_workers_does_the_same(kind: str, tmp_path: Path) -> None:
    with CLUSTERS[kind](tmp_path, seeing_us()) as workers:
        found, _ = start("cluster", tmp_path, workers).communicate(timeout=300)
    as_told(json.loads(found.splitlines()[-1]))


def test_no_more_at_once_than_the_cores_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_cores", lambda: 2)
    assert [Processes(8).room(threads) for threads in (1, 2, 3)] == [2, 1, 1]
    assert isinstance(fanout.fanned("processes:2", lambda fan: fan, "try", 2), Serial)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_package_that_is_missing_is_named_with_its_command(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(FanError, match=rf"prefect-{kind} is not installed; run `pip install --group {kind}` here"):
        cluster_of(f"{kind}:127.0.0.1:1")
