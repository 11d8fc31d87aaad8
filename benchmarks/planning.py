"""How long the plan of one model takes among many, before any was built and after all were, beside DVC's own status of it."""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pages import load, machine, write_section
from pipelines.environment import ROOT, disable_telemetry

#: How many models a project holds.
MODELS = (10, 100, 1000)
FIRST = "model-0"
PLAN = ("flows", "build", FIRST, "--plan")
STATUS = ("dvc", "status", "--with-deps", f"gate@{FIRST}")


def make_project(folder: Path, models: int) -> None:
    """A project of so many models of the recipe of params.yaml, none of them built."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    block = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]["support-intents"]
    (folder / "params.yaml").write_text(
        yaml.safe_dump({"models": {f"model-{at}": copy.deepcopy(block) for at in range(models)}}), encoding="utf-8"
    )
    shutil.copy(ROOT / "dvc.yaml", folder)
    for name in ("pipelines", "data", "registry"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)


def record_all(folder: Path, models: int) -> None:
    """Write dvc.lock as it is once all were built; what they made is not there, which costs DVC no more than looking."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = {
            stage.name: _record(stage)
            for stage in repo.stage.load_all(str(folder / "dvc.yaml"), f"*@{FIRST}", glob=True)
        }
    one = "".join(f"  {line}\n" for line in yaml.safe_dump(stages, sort_keys=False).splitlines())
    every = "".join(one.replace(FIRST, f"model-{at}") for at in range(models))
    (folder / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{every}", encoding="utf-8")


def _record(stage: Any) -> dict[str, Any]:
    from dvc.dependency import ParamsDependency

    def found(things: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"path": thing.def_path, "hash": "md5", "md5": "0" * 32, "size": 1} for thing in things]

    values = [one for one in stage.deps if isinstance(one, ParamsDependency)]
    files = [one for one in stage.deps if one not in values]
    params = {one.def_path: one.read_params() for one in values}
    return {"cmd": stage.cmd, "deps": found(files), "params": params, "outs": found(stage.outs)}


def seconds_of(folder: Path, command: Sequence[str]) -> float:
    """Of a whole process, `python -m ...`."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measured(folder: Path, models: int) -> dict[str, float]:
    """Seconds of the plan before any was built (`new`) and after all were (`built`), and of DVC's own status then (`status`)."""
    make_project(folder, models)
    seconds_of(folder, PLAN)  # the code's digests are then known to DVC, as they are from the second build on
    new = seconds_of(folder, PLAN)
    record_all(folder, models)
    return {"new": new, "built": seconds_of(folder, PLAN), "status": seconds_of(folder, STATUS)}


def table(found: Mapping[int, Mapping[str, float]], conditions: str) -> str:
    """The figures."""
    lines = [
        "## Planning",
        "",
        f"{machine()}; {conditions}. Written by `make bench-planning`: seconds of whole commands, for one of so many models. Of what is built the record is there, the outputs are not.",
        "",
        "| models in params.yaml | plan, none built | plan, all built | `dvc status`, all built |",
        "|---|---|---|---|",
    ]
    for models, one in found.items():
        lines.append(f"| {models:,} | {one['new']:.1f} | {one['built']:.1f} | {one['status']:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    options = parser.parse_args(argv)
    disable_telemetry()
    before = load()
    found = {models: measured(options.work.resolve() / "plan", models) for models in MODELS}
    text = table(found, f"{before} at the start")
    write_section(options.page, "planning", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
