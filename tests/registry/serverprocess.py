"""A prediction server as a process of its own, and a plain client."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.registry.helpers import REPOSITORY


class ServerProcess:
    """`slm-registry serve` on a free port; killed at the end if it still runs."""

    def __init__(self, store: str | Path, cache: Path, ref: str, *options: str) -> None:
        kept = {name: os.environ[name] for name in os.environ if name.startswith("AWS_") or name == "PATH"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "slm_registry",
                "serve",
                ref,
                "--store",
                str(store),
                "--port",
                "0",
                "--json",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **kept,
                "PYTHONPATH": str(REPOSITORY / "registry"),
                "HOME": str(cache),
                "SLM_REGISTRY_CACHE": str(cache),
                "OMP_NUM_THREADS": "1",
            },
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.started = json.loads(line)
        self.url = self.started["url"]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def client(self) -> Client:
        return Client(self.url)

    def stop(self, timeout: float = 60) -> tuple[int, str]:
        """Ask it to end; its exit code, and what it wrote to standard error."""
        self.process.terminate()
        return self.ended(timeout)

    def ended(self, timeout: float = 60) -> tuple[int, str]:
        """What a server that was asked to end left: a second SIGTERM on its way out would be an end by force."""
        error = self.process.communicate(timeout=timeout)[1]
        return self.process.returncode, error


class Client:
    """One connection that is kept open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def get(self, path: str) -> Any:
        status, body = self("GET", path)
        assert status == 200, body
        return json.loads(body)

    def predict(self, texts: Any) -> Any:
        status, body = self("POST", "/predict", json.dumps({"texts": texts}).encode())
        assert status == 200, body
        return json.loads(body)

    def refused(self, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self("POST", "/predict", data)
        return status, json.loads(answer)["error"]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        body = self("GET", "/metrics")[1].decode()
        found = [line for line in body.splitlines() if line.split("{")[0].split(" ")[0] == name]
        assert found, f"no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
