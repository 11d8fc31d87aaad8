"""A DVC project small enough to build in seconds: real git, real DVC, the factory's stage names, and commands that do as they are told.

What a stage does beside writing its outputs stands in `behaviour/STAGE.MODEL`, which is no dependency of it: see tool.py below.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("alpha", "beta")
STAGES = ("validate", "teach", "label", "evaluate", "gate")

DVC_YAML = """\
stages:
  validate:
    foreach: ${models}
    do:
      cmd: python tool.py validate ${key} build/${key}/data
      deps:
        - data/${key}.csv
      params:
        - models.${key}.data
      outs:
        - build/${key}/data
  teach:
    foreach: ${models}
    do:
      meta: {trains: true}
      cmd: python tool.py teach ${key} build/${key}/teacher
      deps:
        - build/${key}/data
      params:
        - models.${key}.teach
      outs:
        - build/${key}/teacher
  label:
    foreach: ${models}
    do:
      cmd: python tool.py label ${key} build/${key}/signals
      deps:
        - build/${key}/data
      params:
        - models.${key}.label
      outs:
        - build/${key}/signals
  evaluate:
    foreach: ${models}
    do:
      cmd: python tool.py evaluate ${key} build/${key}/bundle
      deps:
        - build/${key}/signals
        - build/${key}/teacher
      params:
        - models.${key}.evaluate
      outs:
        - build/${key}/bundle
        - build/${key}/evaluation/report.html
      metrics:
        - build/${key}/evaluation/metrics.json:
            cache: false
  gate:
    foreach: ${models}
    do:
      cmd: python tool.py gate ${key} build/${key}/gate.json
      deps:
        - build/${key}/evaluation/metrics.json
      params:
        - models.${key}.gate
      outs:
        - build/${key}/gate.json
"""

TOOL = '''\
"""STAGE MODEL OUT: do as behaviour/STAGE.MODEL says, then write OUT."""
import json, os, pathlib, subprocess, sys, time

stage, model, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
with open(f"runs.{model}.log", "a") as log:
    log.write(f"{stage}\\n")
told = pathlib.Path("behaviour", f"{stage}.{model}")
order, _, rest = (told.read_text() if told.exists() else "").partition(" ")
if order == "sleep":
    print(f"{stage} {model} sleeps", flush=True)
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({rest})  # nap of {os.getcwd()}"])
if order == "deaf":
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep({rest})  # nap of {os.getcwd()}"
    subprocess.run([sys.executable, "-c", code])
if order == "fail":
    print(rest, file=sys.stderr)
    sys.exit(5)
if order == "once":
    told.unlink()
    print(rest, file=sys.stderr)
    sys.exit(7)
if order == "crash":
    raise ValueError(rest)
out.parent.mkdir(parents=True, exist_ok=True)
if stage in ("validate", "teach", "label"):
    source = pathlib.Path({"validate": f"data/{model}.csv"}.get(stage, f"build/{model}/data"))
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    out.write_text(f"{stage} " + "".join(path.read_text() for path in files))
elif stage == "evaluate":
    side = {"accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "macro_f1": 0.89, "bytes": 9e7, "p50_ms": 12.0, "texts_per_s": 50.0}
    small = side | {"bytes": 5e6, "p50_ms": 0.8, "classes": [1, 2, 3]}
    compared = {"size_ratio": 18.0, "latency_ratio": 15.0, "accuracy_difference": -0.004}
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "tokenizer.json").write_text(pathlib.Path(f"build/{model}/signals").read_text())
    (out / "lineage.json").write_text(json.dumps({"data_sha256": "d" * 64, "teacher": {"source": "toy", "sha256": "e" * 64}, "environment": {"torch": "2"}}))
    evaluation = out.parent / "evaluation"
    evaluation.mkdir(exist_ok=True)
    (evaluation / "report.html").write_text("<h1>report</h1>")
    (evaluation / "metrics.json").write_text(json.dumps({"teacher": side, "model": small, "comparison": compared}))
else:
    out.write_text("{}")
'''


class Toy:
    """A toy project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def behave(self, stage: str, order: str, model: str = "alpha") -> None:
        """Tell a stage what to do from now on; an empty order: behave."""
        path = self.folder / "behaviour" / f"{stage}.{model}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(order)

    def change(self, model: str, section: str, key: str, value: Any) -> None:
        """Change one value of a model's recipe."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["models"][model][section][key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def ran(self, model: str = "alpha") -> list[str]:
        """The stages whose commands were started, in order, since the last look."""
        path = self.folder / f"runs.{model}.log"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Start `python -m flows ...` here."""
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment() | extra,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def flows(self, *arguments: str, **extra: str) -> tuple[int, str]:
        """Run `python -m flows ...` here: exit code and output."""
        process = self.start(*arguments, **extra)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def dvc(self, *arguments: str) -> str:
        """Run DVC here and return what it printed."""
        return run([sys.executable, "-m", "dvc", *arguments], self.folder)

    def processes(self) -> list[psutil.Process]:
        """Every live process that works in this project, except ours."""
        found = []
        for process in psutil.process_iter():
            try:
                places = {process.cwd(), *process.cmdline()}
                if (
                    str(self.folder) in places
                    and process.pid != os.getpid()
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def environment() -> dict[str, str]:
    """The environment of a fresh shell in which the factory is importable."""
    return os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'registry'}"}


def run(command: list[str], folder: Path) -> str:
    """Run a command that must succeed."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_toy(folder: Path) -> Toy:
    """Write a toy project with two models of the recipe that `flows new` starts from; nothing is built."""
    folder.mkdir(parents=True)
    recipe = yaml.safe_load((REPOSITORY / "flows" / "recipes" / "text-classification.yaml").read_text())
    recipe["teach"]["label_smoothing"], recipe["gate"]["max_bytes"] = 0.1, 8000000  # two values that tests name
    params = {"models": {model: copy.deepcopy(recipe) for model in MODELS}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "tool.py").write_text(TOOL)
    (folder / ".gitignore").write_text("/build/\n/store/\n/.prefect/\n*.log\n/behaviour/\n")
    (folder / "data").mkdir()
    for model in MODELS:
        (folder / "data" / f"{model}.csv").write_text(f"text,label\n{model},x\n")
    run(["git", "init", "-q", "."], folder)
    run([sys.executable, "-m", "dvc", "init", "-q"], folder)
    shutil.copy(REPOSITORY / ".dvc" / "config", folder / ".dvc" / "config")
    run(["git", "add", "."], folder)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "toy"], folder)
    return Toy(folder)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until a condition holds and return its value; fail after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"did not come to pass within {seconds} s: {condition}")
