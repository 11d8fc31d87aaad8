"""Toy projects and one Prefect server for all tests of the flows."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.environment import disable_telemetry

# Prefect reads its home when it is imported, so this cannot wait for a fixture. Nothing of a user's own is touched.
disable_telemetry()
HOME = Path(tempfile.mkdtemp(prefix="flows-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["PREFECT_HOME"] = str(HOME / "prefect")
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PREFECT_API_URL", None)

from tests.flows.toy import Toy, make_toy, wait_for  # noqa: E402


@pytest.fixture(scope="session")
def api() -> Iterator[str]:
    """The address of a real `prefect server start`, for this process and for the commands that the tests start."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import child, server

    port = server.free_port()
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        server.HOST,
        "--port",
        str(port),
        "--no-ui",
    ]
    with (HOME / "server.log").open("w") as log:
        process = child.start(command, cwd=HOME, stdout=log)
    atexit.register(child.end, process)  # not earlier: Prefect's own exit handlers still send logs
    wait_for(lambda: server.healthy(port), server.START_SECONDS)
    url = f"http://{server.HOST}:{port}/api"
    os.environ["PREFECT_API_URL"] = url
    with temporary_settings({PREFECT_API_URL: url}):
        yield url
    del os.environ["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("template") / "toy").folder


@pytest.fixture(scope="session")
def _built_template(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "toy"
    shutil.copytree(_template, folder)
    toy = Toy(folder)
    toy.dvc("repro", "-q")
    toy.ran("alpha"), toy.ran("beta")
    return folder


@pytest.fixture
def toy(_template: Path, tmp_path: Path) -> Iterator[Toy]:
    """A project of which nothing is built; no process may be left in it."""
    yield from _copy(_template, tmp_path)


@pytest.fixture
def built(_built_template: Path, tmp_path: Path) -> Iterator[Toy]:
    """A project of which all is built."""
    yield from _copy(_built_template, tmp_path)


def _copy(template: Path, place: Path) -> Iterator[Toy]:
    folder = place / "toy"
    shutil.copytree(template, folder)
    toy = Toy(folder)
    yield toy
    left = toy.processes()
    for process in left:
        process.kill()
    assert not left, f"left behind: {left}"


@pytest.fixture
def inside() -> Iterator[Callable[[Toy], Toy]]:
    """Change into a toy project, as a user would, until the test is over."""
    with contextlib.ExitStack() as stack:

        def change(toy: Toy) -> Toy:
            stack.enter_context(contextlib.chdir(toy.folder))
            return toy

        yield change
