"""A copy of the project with a tiny model in it: real git, real DVC, a real (tiny) recipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.bundle import sha256_of
from pipelines.environment import ROOT
from tests.recipes import recipe_dict
from tests.tiny import tiny_model, tiny_rows, write_csv

COPIED = ("pipelines", "flows", "registry", "dvc.yaml", "telemetry.env", ".dvcignore", ".gitignore")


def make_project(folder: Path, **changes: Any) -> Path:
    """A git and DVC project with the one model `tiny`; its recipe changed as tests.recipes.recipe_dict says."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        # what is compiled comes along: each process of a project would compile it again
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
    write_csv(folder / "data" / "tiny.csv", tiny_rows())
    body = tiny_model(folder / "models" / "tiny")
    block = recipe_dict(teach__sha256=sha256_of(body / "model.safetensors"), **changes)
    write_params(folder, block)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    for command in ("init -q", "add -A", "commit -q -m start"):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *command.split()], cwd=folder, check=True)
    return folder


def write_params(folder: Path, block: dict[str, Any]) -> None:
    """params.yaml with one model."""
    (folder / "params.yaml").write_text(yaml.safe_dump({"models": {"tiny": block}}), encoding="utf-8")


def run(folder: Path, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project (`python -m ...`) in its folder, with its own code first on the path."""
    env = os.environ | {
        "PYTHONPATH": f"{folder}:{folder / 'registry'}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env | variables, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        )
    return done
