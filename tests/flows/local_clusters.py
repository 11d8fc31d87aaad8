"""Real clusters of two workers on this machine: Dask's, which requirements.lock has, and Ray's, whose tests skip where it is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.server import free_port
from tests.flows.toy import REPOSITORY, wait_for


@contextmanager
def dask_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The workers as `--workers` names them."""
    there = {"cwd": REPOSITORY, "env": dict(environment), "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    known = folder / "scheduler.json"
    processes = [subprocess.Popen([*command, "--no-dashboard", "--scheduler-file", str(known)], **there)]
    try:
        wait_for(known.is_file, 60)
        address = json.loads(known.read_text())["address"]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--nworkers", "2"]
        processes.append(subprocess.Popen([*command, "--no-dashboard", "--local-directory", str(folder)], **there))
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield f"dask:{address}"
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


@contextmanager
def ray_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """As dask_cluster does."""
    pytest.importorskip("prefect_ray", reason="the group ray is not installed: pip install --group ray")
    port = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)]
    with (folder / "ray.log").open("w+") as log:
        there = {"cwd": REPOSITORY, "env": dict(environment), "stdout": log, "stderr": log}
        process = subprocess.Popen([*command, "--num-cpus", "2", "--include-dashboard=false"], **there)
        try:
            wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text(), 60)
            yield f"ray:127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}
