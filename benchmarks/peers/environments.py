"""A virtual environment a peer, kept as long as its pins stay what they were."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.peers.errors import PeerError

DONE = "installed.sha256"
PIP = "pip==26.3"


def environment(name: str, root: Path) -> Path:
    """The interpreter of a peer's environment below `root`, installed where it is missing or its pins changed.

    Raises PeerError where pip fails; its log stands beside the environment.
    """
    pins = peers.HERE / name / "requirements.txt"
    digest = hashlib.sha256(pins.read_bytes() + f"{PIP}\n{sys.version}".encode()).hexdigest()
    home = root / name
    python = home / "bin" / "python"
    done = home / DONE
    if done.exists() and done.read_text() == digest:
        return python
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    log = root / f"{name}-install.log"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    commands = ([sys.executable, "-m", "venv", str(home)], [*pip, "--upgrade", PIP], [*pip, "--requirement", str(pins)])
    with log.open("w", encoding="utf-8") as file:
        for command in commands:
            if subprocess.run(command, stdout=file, stderr=file, env=clean_environment(), check=False).returncode:
                raise PeerError(f"{name}: `{' '.join(command)}` failed; its log: {log}")
    done.write_text(digest)
    return python


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a peer to this project's own packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
