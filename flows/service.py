"""`python -m flows.service up|down|state`: Prefect's server, the pool, the deployments and a worker on this machine. `make up`, `make down`.

Both processes outlive the command. Their numbers and what they print are in Prefect's home (`.prefect/`). Where they must outlive the
machine's restarts too, a service manager runs the same two commands: docs/operations.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.errors import FlowError
from flows.graph import find_root
from flows.server import HOST, LEASES, START_SECONDS, healthy
from flows.trainers import limit_here
from pipelines.environment import disable_telemetry

POOL = "factory"
#: Seconds in which a process must have ended after SIGTERM; the runs of a worker take up to ten themselves.
END_SECONDS = 30.0
_TICK = 0.2


@dataclass(frozen=True)
class Service:
    """What runs for one project: `home` is Prefect's, `port` the server's on this machine."""

    root: Path
    home: Path
    port: int

    @property
    def api(self) -> str:
        """Where the server answers."""
        return f"http://{HOST}:{self.port}/api"

    def up(self) -> None:
        """Start what does not run yet. Raises FlowError where something does not start."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlowError(
                f"{self.home}: {error.strerror}; Prefect keeps its runs there, PREFECT_HOME names another place"
            ) from error
        self._check_server()
        if not healthy(self.port):
            started = self._start("server", "server", "start", "--host", HOST, "--port", str(self.port))
            self._wait("server", started, lambda: healthy(self.port))
        if self._run("prefect", "work-pool", "inspect", POOL, check=False):
            self._run("prefect", "work-pool", "create", POOL, "--type", "process")
        if self._run("prefect", "gcl", "inspect", limit_here(), check=False):
            self._run("prefect", "gcl", "create", limit_here(), "--limit", "1")
        self._run("prefect", "--no-prompt", "deploy", "--all")
        self._run("flows.lost")
        if self.process("worker") is None:
            started = self._start("worker", "worker", "start", "--pool", POOL)
            log = self.log("worker")
            self._wait("worker", started, lambda: "started!" in log.read_text(encoding="utf-8", errors="replace"))

    def _check_server(self) -> None:
        """Raise FlowError where the server runs elsewhere, or another one at this port: its deployments are not ours to replace."""
        ours = self.process("server")
        port = json.loads(self._note("server").read_text(encoding="utf-8"))["port"] if ours else None
        if ours and port != self.port:
            raise FlowError(
                f"Prefect's server runs already, at port {port}; `make up PORT={port}`, or `make down` first"
            )
        if not ours and healthy(self.port):
            raise FlowError(
                f"port {self.port} is a server's that `make up` did not start here; end it, or take another port: `make up PORT=4300`"
            )

    def down(self) -> None:
        """End the worker, with what it runs, then the server."""
        for name in ("worker", "server"):
            process = self.process(name)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()
            self._note(name).unlink(missing_ok=True)

    def process(self, name: str) -> psutil.Process | None:
        """The server or the worker that `up` started, where it lives; another process that got its number is not it."""
        try:
            noted = json.loads(self._note(name).read_text(encoding="utf-8"))
            process = psutil.Process(noted["pid"])
            # Not by its time of birth: psutil reckons that from a clock that may be set.
            return process if process.cmdline() == noted["command"] else None
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return None

    def log(self, name: str) -> Path:
        """What it prints."""
        return self.home / f"{name}.log"

    def _note(self, name: str) -> Path:
        return self.home / f"{name}.json"

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        ours = {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.api, "PATH": path, **LEASES}
        return os.environ | ours

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("w", encoding="utf-8") as output:
            command = [sys.executable, "-m", "prefect", *arguments]
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        noted = {"pid": process.pid, "command": command, "port": self.port}
        self._note(name).write_text(json.dumps(noted), encoding="utf-8")
        return process

    def _wait(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            # Not by its command, which a process that has just been started may not bear yet.
            if time.monotonic() > deadline or process.poll() is not None:
                process.terminate()  # or the next `up` would start a second one beside it
                last = self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise FlowError(f"Prefect's {name} did not start{': ' + last[0] if last else ''}; see {self.log(name)}")
            time.sleep(_TICK)

    def _run(self, *module: str, check: bool = True) -> int:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=self.root,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise FlowError(f"`python -m {' '.join(module)}` failed: {(done.stdout + done.stderr).strip()}")
        return done.returncode


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit code. `state` exits with 1 where something is missing."""
    disable_telemetry()
    parser = argparse.ArgumentParser(
        prog="python -m flows.service", description="Server, pool, deployments and worker."
    )
    parser.add_argument("command", choices=("up", "down", "state"))
    parser.add_argument("--port", type=int, default=4200, help="the server's (default: 4200)")
    given = parser.parse_args(argv)
    root = find_root(Path.cwd())
    service = Service(root, Path(os.environ.get("PREFECT_HOME", root / ".prefect")).absolute(), given.port)
    try:
        if given.command == "up":
            service.up()
        if given.command == "down":
            service.down()
    except FlowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return _say(service, wanted=given.command != "down")


def _say(service: Service, *, wanted: bool) -> int:
    """What runs; 0 where that is what was wanted."""
    found = {"server": healthy(service.port), "worker": service.process("worker") is not None}
    for name, runs in found.items():
        print(f"{name:<8}{'runs' if runs else 'does not run'}; log: {os.path.relpath(service.log(name))}")
    if wanted and all(found.values()):
        print(
            f"page    http://{HOST}:{service.port}\nnext:\n  export PREFECT_API_URL={service.api}\n  prefect deployment ls"
        )
    return 0 if all(runs == wanted for runs in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
