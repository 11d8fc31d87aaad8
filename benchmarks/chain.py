"""The factory's own chain for a benchmark: dvc.yaml's commands in a folder of their own, timed, nothing published."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.environment import ROOT

RECIPES = Path(__file__).parent / "recipes.yaml"
#: What all shapes of a data set have in common, stage by stage: made once, counted for each.
SHARED = {"validate": "data", "teach": "teacher", "label": "signals"}


def recipe_for(name: str, source: Path, kind: str = "") -> dict[str, Any]:
    """The board's recipe of a data set, or its recipe of a kind such as `-front`; the default one where it has none of its own."""
    recipes = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    block: dict[str, Any] = recipes.get(name + kind, recipes["default" + kind])
    block["data"]["source"] = str(source.resolve())
    return block


def build(name: str, source: Path, work: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run stages from scratch in `work`; seconds of each. Raises CalledProcessError where one fails."""
    shutil.rmtree(work, ignore_errors=True)
    return run(name, recipe_for(name, source), work, stages)


def run(name: str, recipe: dict[str, Any], work: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run stages of a recipe on what stands in `work` already; seconds of each. Raises CalledProcessError where one fails."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "params.yaml").write_text(yaml.safe_dump({"models": {name: recipe}}), encoding="utf-8")
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}"}
    seconds = {}
    for stage in stages:
        command = graph[stage]["do"]["cmd"].replace("${key}", name)
        command = command.replace("${item.data.source}", recipe["data"]["source"])
        start = time.perf_counter()
        subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=work, env=environment, check=True)
        seconds[stage] = time.perf_counter() - start
    return seconds


def begin_beside(name: str, work: Path, folder: Path) -> Path:
    """Another shape of what stands in `work`: its teacher and signals, linked into `folder`. Where its stages write."""
    shutil.rmtree(folder, ignore_errors=True)
    for out in SHARED.values():
        shutil.copytree(work / "build" / name / out, folder / "build" / name / out, copy_function=os.link)
    return folder / "build" / name
