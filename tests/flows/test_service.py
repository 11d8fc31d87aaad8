"""`python -m flows.service`: real server, pool, deployments and worker, started, left alone, and ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from flows.server import HOST, free_port, healthy
from flows.service import Service
from tests.flows.toy import REPOSITORY, Toy, environment


@pytest.fixture(scope="module")
def project(_built_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """The toy with the project's own prefect.yaml; whatever runs for it ends with the tests."""
    toy = Toy(tmp_path_factory.mktemp("service") / "toy")
    shutil.copytree(_built_template, toy.folder)
    shutil.copy(REPOSITORY / "prefect.yaml", toy.folder)
    (toy.folder / "flows").symlink_to(REPOSITORY / "flows")
    yield toy
    for process in toy.processes():
        process.kill()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


def service(toy: Toy, port: int, command: str) -> tuple[int, str]:
    env = {key: value for key, value in environment().items() if key != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.service", command, "--port", str(port)],
        cwd=toy.folder,
        env=env | {"PREFECT_HOME": str(toy.folder / ".prefect")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def listed(address: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = httpx.post(address, json={}).raise_for_status().json()
    return found


def test_up_twice_then_down(project: Toy, port: int) -> None:
    code, output = service(project, port, "up")
    assert code == 0, output
    assert output.splitlines()[:2] == [
        "server  runs; log: .prefect/server.log",
        "worker  runs; log: .prefect/worker.log",
    ]
    assert f"export PREFECT_API_URL=http://{HOST}:{port}/api" in output
    running = {one.pid for one in project.processes()}
    api = f"http://{HOST}:{port}/api"
    names = {
        f"{found['entrypoint'].rpartition(':')[2]}/{found['name']}" for found in listed(f"{api}/deployments/filter")
    }
    assert names == {
        "build/support-intents",
        "build/support-budget-front",
        "verify/support-intents",
        "monitor/support-intents",
        "collect/store",
    }
    assert [found["name"] for found in listed(f"{api}/automations/filter")] == ["slm-factory: lost"]
    assert service(project, port, "up")[0] == 0
    assert {one.pid for one in project.processes()} == running, "what runs is left alone"
    code, output = service(project, port, "down")
    assert code == 0, output
    assert output.splitlines() == [
        "server  does not run; log: .prefect/server.log",
        "worker  does not run; log: .prefect/worker.log",
    ]
    assert not healthy(port) and project.processes() == []
    assert service(project, port, "down")[0] == 0
    assert service(project, port, "state")[0] == 1


def test_another_process_with_the_number_of_ours_is_not_ours(tmp_path: Path) -> None:
    found = Service(tmp_path, tmp_path, 1)
    (tmp_path / "worker.json").write_text(json.dumps({"pid": os.getpid(), "command": ["other"]}))
    assert found.process("worker") is None
    (tmp_path / "worker.json").write_text(json.dumps({"pid": os.getpid(), "command": psutil.Process().cmdline()}))
    assert found.process("worker") == psutil.Process()
    (tmp_path / "worker.json").write_text("{")
    assert found.process("worker") is None


def test_a_place_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "home").touch()
    done = subprocess.run(
        [sys.executable, "-m", "flows.service", "up", "--port", str(free_port())],
        cwd=tmp_path,
        env=environment() | {"PREFECT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"FlowError: {tmp_path / 'home'}: File exists; Prefect keeps its runs there, PREFECT_HOME names another place\n"
    )
