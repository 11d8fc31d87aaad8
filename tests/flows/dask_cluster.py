"""A real Dask cluster of two workers on this machine; tests skip where its package is not installed."""

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
    pytest.importorskip("prefect_dask", reason="the group dask is not installed: pip install --group dask")
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
