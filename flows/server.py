"""Prefect's API for a build from the command line: the server that Prefect's settings name, or a temporary one of our own.

Prefect would start a temporary server by itself, but that one survives a SIGKILL of its parent, two first starts at once race for
the database's migrations, and nothing can be done meanwhile.
"""

from __future__ import annotations

import atexit
import fcntl
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows import child, temporary
from flows.errors import FlowError
from pipelines.environment import importing

START_SECONDS = 90.0
HOST = "127.0.0.1"
#: Where the server keeps who holds a place of a concurrency limit. In its memory, as is its way, a place would be lost with the server for
#: good, and a deployment of which one run was cut off by a power failure would never run again.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
_READY_TICK = 0.1


@contextmanager
def prefect_api(home: Path, meanwhile: Callable[[], None]) -> Iterator[str]:
    """Point Prefect at a server for the time of the `with`: the one that its settings name, or a temporary one that keeps its runs in `home`.

    `meanwhile` runs while that one starts. Raises FlowError where it does not come up.
    """
    with ExitStack() as starting:
        # Before Prefect is imported, which takes a second: a server that a profile of Prefect's names is rarer than none.
        begun = None if os.environ.get("PREFECT_API_URL") else starting.enter_context(_temporary_server(home))
        with importing():
            from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

        if (named := PREFECT_API_URL.value()) and begun:
            child.end(begun.process)
        meanwhile()
        if begun and not named:
            _wait_until_healthy(begun)
    if named or begun is None:
        yield str(named)
        return
    with temporary_settings({PREFECT_API_URL: begun.url, PREFECT_UI_URL: ""}):
        yield begun.url


@dataclass(frozen=True)
class _Temporary:
    """A server that was begun."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/api"


@contextmanager
def _temporary_server(home: Path) -> Iterator[_Temporary]:
    """Begin a server on a free port of this machine, which is to be up when the `with` ends; it ends with this process, however that ends."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "temporary-server.log"
    with _one_at_a_time(home / "temporary-server.lock"), log.open("w", encoding="utf-8") as output:
        port = free_port()
        environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            **LEASES,
        }
        command = [sys.executable, "-P", temporary.__file__, HOST, str(port)]
        process = child.start(command, cwd=home, env=environment, stdout=output)
        # At exit and not earlier: Prefect's own exit handlers, which run first, still send logs and events.
        atexit.register(child.end, process)
        yield _Temporary(process, port, log)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a file lock: servers that share a database start one after another, or their migrations collide."""
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(begun: _Temporary) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and begun.process.poll() is None:
        if healthy(begun.port):
            return
        time.sleep(_READY_TICK)
    last = begun.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise FlowError(
        f"Prefect's temporary server did not start{': ' + last[0] if last else ''}; see {begun.log}, or set PREFECT_API_URL to a running server"
    )


def healthy(port: int) -> bool:
    """Whether a Prefect server answers on a port of this machine."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
