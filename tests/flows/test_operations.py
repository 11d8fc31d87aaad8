"""docs/operations.md, from zero to a scheduled, published build: its commands, one after the other, on the toy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from slm_registry import Registry

from flows.server import free_port
from tests.flows.toy import REPOSITORY, run

#: What the test's own environment stands for.
SET_UP = ("make install", ". .venv/bin/activate", "set -a; . ./telemetry.env; set +a")
MODEL = "support-intents"
#: What the toy cannot: it exports nothing. tests/test_end_to_end.py verifies a version.
VERIFY = "prefect deployment run verify/support-intents --watch"


def commands() -> list[str]:
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)).splitlines()
    assert lines[:3] == list(SET_UP)
    assert VERIFY in lines
    return [line.replace(MODEL, "alpha") for line in lines[3:] if line != VERIFY]


@pytest.fixture
def project(_template: Path, tmp_path: Path) -> Iterator[Path]:
    """The toy, its model under the name that the page has, with the deployments that are the project's."""
    folder = tmp_path / "project"
    shutil.copytree(_template, folder)
    (folder / "flows").symlink_to(REPOSITORY / "flows")
    for name in (
        "prefect.yaml",
        "Makefile",
        "prefect.toml",
        "requirements.lock",
        "requirements.sha256",
        "pyproject.toml",
        "telemetry.env",
    ):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "prefect.yaml").write_text((folder / "prefect.yaml").read_text().replace(MODEL, "alpha"))
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "installed").touch()
    run(["git", "add", "-A"], folder)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all"], folder)
    yield folder
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                process.kill()


def test_every_command_of_the_page_works(project: Path, tmp_path: Path) -> None:
    port = str(free_port())
    script = "\n".join(["set -eux", *commands()]).replace("4200", port)
    here = Path(sys.executable).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")} | {
        "HOME": str(tmp_path),
        "PATH": f"{here}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'registry'}",
        "MAKEFLAGS": f"VENV={tmp_path / 'venv'} BIN={here} PORT={port}",
        "OMP_NUM_THREADS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (row,) = Registry(project / "store").list("alpha")
    assert (row.version, row.aliases) == ("1.0.0", ("candidate", "production"))
    assert "Build alpha" in done.stdout, "the log of git"
    assert list((tmp_path / "slm-factory-storage").glob("files/md5/*/*"))
    assert "worker  does not run" in done.stdout
