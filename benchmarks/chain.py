"""The factory's own chain for a benchmark: dvc.yaml's commands in a folder of their own, timed, nothing published; cut off, it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from pipelines.environment import ROOT

RECIPES = Path(__file__).parent / "recipes.yaml"
#: What all shapes of a data set have in common, stage by stage: made once, counted for each.
SHARED = {"validate": "data", "teach": "teacher", "label": "signals"}
#: Which stages ran in a folder, and how long they took.
RAN = "ran.json"


def recipe_for(name: str, source: Path, kind: str = "") -> dict[str, Any]:
    """The board's recipe of a data set, or its recipe of a kind such as `-front`; the default one where it has none of its own."""
    recipes = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    block: dict[str, Any] = recipes.get(name + kind, recipes["default" + kind])
    block["data"]["source"] = str(source.resolve())
    return block


def run(name: str, recipe: dict[str, Any], work: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run stages of a recipe on what stands in `work` already; seconds of each. Raises CalledProcessError where one fails.

    A run that was cut off goes on: a stage that ran there on this processor with the same parts of the recipe that the graph
    names for it, data, code and packages is not run again, and its seconds are those of then, unless one before it had to be.
    """
    work.mkdir(parents=True, exist_ok=True)
    (work / "params.yaml").write_text(yaml.safe_dump({"models": {name: recipe}}), encoding="utf-8")
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}"}
    every, seconds = list(graph), {}
    for stage in stages:
        spec = json.loads(json.dumps(graph[stage]["do"]).replace("${key}", name))
        outs = [work / out for out in spec["outs"]]
        sections = [parameter.removeprefix(f"models.{name}.") for parameter in spec["params"]]
        made_of, before = identity(recipe, sections), ran(work)
        if stage in before and before[stage]["of"] == made_of and all(out.exists() for out in outs):
            seconds[stage] = before[stage]["seconds"]
            continue
        earlier = every[: every.index(stage)]
        _write_ran(work, {one: found for one, found in before.items() if one in earlier})
        for out in outs:
            shutil.rmtree(out, ignore_errors=True)
        command = spec["cmd"].replace("${item.data.source}", recipe["data"]["source"])
        start = time.perf_counter()
        subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=work, env=environment, check=True)
        seconds[stage] = time.perf_counter() - start
        _write_ran(work, ran(work) | {stage: {"of": made_of, "seconds": seconds[stage]}})
    return seconds


def ran(work: Path) -> dict[str, dict[str, Any]]:
    """Which stages ran in a folder: of what each was made, and the seconds that it took."""
    record = work / RAN
    found: dict[str, dict[str, Any]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    return found


def _write_ran(work: Path, found: Mapping[str, Any]) -> None:
    draft = work / f"{RAN}.partial"
    draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draft.replace(work / RAN)


def identity(recipe: Mapping[str, Any], sections: Sequence[str]) -> str:
    """A digest of sections of a recipe and of its data, of all code and packages that stages are of, and of the processor that their seconds were taken on."""
    from slm_registry.runtime.machine import this_machine

    packages = sorted(f"{found.name} {found.version}" for found in distributions())
    parts = {section: recipe[section] for section in sections}
    digest = hashlib.sha256(json.dumps([parts, this_machine().processor, packages], sort_keys=True).encode())
    source = Path(recipe["data"]["source"])
    for folder, pattern in ((ROOT / "pipelines", "*.py"), (ROOT / "registry", "*.py"), (source, "*")):
        for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def begin_beside(name: str, work: Path, folder: Path) -> Path:
    """Another shape of what stands in `work`: its teacher and signals, linked into `folder`. Where its stages write.

    What stands in `folder` is left where it was begun beside the same teacher and signals.
    """
    shared = {stage: found for stage, found in ran(work).items() if stage in SHARED}
    made, began = folder / "build" / name, folder / "beside.json"
    if shared and began.exists() and json.loads(began.read_text(encoding="utf-8")) == shared:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    for out in SHARED.values():
        shutil.copytree(work / "build" / name / out, made / out, copy_function=os.link)
    began.write_text(json.dumps(shared), encoding="utf-8")
    return made
