"""Prefect's own processes for chaos: a server that can be killed and come back, a worker for one place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.server import HOST, START_SECONDS, free_port, healthy
from tests.chaos.ground import Place
from tests.flows.toy import REPOSITORY, wait_for

POOL = "chaos"


@dataclass
class Server:
    """`prefect server start` on a port that stays its own."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}/api"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = ["server", "start", "--host", HOST, "--port", str(self.port), "--no-ui"]
        self.process = _start(command, self.home, {"PREFECT_HOME": str(self.home)}, self.home / "server.log")
        wait_for(lambda: healthy(self.port), START_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def server(home: Path) -> Iterator[Server]:
    """A running server; it is killed at the end, where it still runs."""
    made = Server(home)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@contextmanager
def worker(place: Place) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str, dict[str, Any]], None]]]:
    """A worker of a pool of its own in a place's project, and what starts a flow's run there."""
    pool = f"{POOL}-{place.folder.parent.name}-{place.folder.name}"  # of the trial and its attempt
    variables = place.variables()
    _prefect(place, "work-pool", "create", pool, "--type", "process")
    log = place.folder / "worker.log"
    process = _start(
        ["worker", "start", "--pool", pool], place.project, variables | {"PREFECT_WORKER_QUERY_SECONDS": "1"}, log
    )
    wait_for(lambda: "started!" in log.read_text(), START_SECONDS)

    def launch(name: str, parameters: dict[str, Any]) -> None:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: variables["PREFECT_API_URL"]}), get_client(sync_client=True) as api:
            deployment = api.create_deployment(
                api.create_flow_from_name(name),
                pool,
                entrypoint=f"{REPOSITORY}/flows/{name}.py:{name}",
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(place.project)}}],
                work_pool_name=pool,
                enforce_parameter_schema=False,
            )
            api.create_flow_run_from_deployment(deployment, parameters=parameters)

    try:
        yield process, launch
    finally:
        process.kill()
        process.wait()


def _prefect(place: Place, *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    subprocess.run(command, cwd=place.folder, env=place.variables(), check=True, capture_output=True)


def _start(arguments: list[str], folder: Path, variables: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=folder,
            env=os.environ | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
