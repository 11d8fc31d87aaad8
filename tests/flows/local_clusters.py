"""Real clusters of two workers on this machine: Dask's, which requirements.lock has, and Ray's, whose tests skip where it is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

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
def ray_cluster(_folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """As dask_cluster does."""
    pytest.importorskip("prefect_ray", reason="the group ray is not installed: pip install --group ray")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    there = {"cwd": REPOSITORY, "env": dict(environment), "capture_output": True}
    options = ["--head", "--port", "6380", "--num-cpus", "2", "--include-dashboard=false"]
    subprocess.run([*ray, "start", *options], check=True, **there)
    try:
        yield "ray:127.0.0.1:6380"
    finally:
        subprocess.run([*ray, "stop"], check=True, **there)


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}
