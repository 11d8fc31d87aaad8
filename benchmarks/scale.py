"""What a second worker gives: labelled texts a second, points of a front an hour, texts trained a second.

Every figure is of whole commands: a stage's process from its start to its end, workers' start and Prefect's included.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.chain import run
from benchmarks.pages import load, machine, write_section
from pipelines.environment import ROOT, disable_telemetry, quiet_libraries

NAME = "scale"
TWO = {"SLM_FACTORY_FAN": "flows.fanout:processes:2"}
#: The folder that a stage writes.
PLACES = {"label": "signals", "explore": "front", "distill": "student"}
#: Texts of the paper's model, and models.
MANY_TEXTS, MANY_MODELS = 100_000_000, 1000


def recipe(work: Path, texts: int) -> dict[str, Any]:
    """`support-budget` on one thread, its teacher and student hardly trained, with as many unlabelled texts made of the corpus' words."""
    block: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"][
        "support-budget"
    ]
    block = copy.deepcopy(block)
    source = work / "data"
    source.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / block["data"]["source"], source / "rows.csv")
    (source / "unlabelled.txt").write_text("\n".join(made_texts(source / "rows.csv", texts)) + "\n", encoding="utf-8")
    block["data"] |= {"source": str(source), "unlabelled": "unlabelled.txt"}
    block["data"]["splits"]["file"] = "rows.csv"
    block["task"]["threads"] = 1
    for training in (
        block["teach"]["training"],
        block["distill"]["training"],
        block["distill"]["student"]["without_layers"]["training"],
    ):
        training["epochs"] = 1
    block["distill"]["student"]["whole_epochs"] = 0
    return block


def made_texts(rows: Path, count: int) -> list[str]:
    """As many texts, each the head of one text of a file and the tail of another."""
    with rows.open(encoding="utf-8", newline="") as file:
        words = [row["text"].split() for row in csv.DictReader(file)]
    draw = random.Random(17)
    made: dict[str, None] = {}
    while len(made) < count:
        one, other = draw.choice(words), draw.choice(words)
        made[" ".join([*one[: len(one) // 2], *other[len(other) // 2 :]])] = None
    return list(made)


def seconds_of(stage: str, work: Path, out: str, **environment: str) -> float:
    """Seconds of a stage's process, from nothing, its outputs put aside into a folder of that name. Raises CalledProcessError where it fails."""
    options = {
        "label": {"clean": "data", "teacher": "teacher", "signals": f"{out}/signals"},
        "explore": {"clean": "data", "teacher": "teacher", "student": "student", "front": f"{out}/front"},
        "distill": {
            "clean": "data",
            "signals": "signals",
            "teacher": "teacher",
            "student": f"{out}/student",
            "curve": f"{out}/curve.csv",
        },
    }
    words = [word for name, place in options[stage].items() for word in (f"--{name}", f"build/{NAME}/{place}")]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'registry'}", "OMP_NUM_THREADS": "1"}
    for left in (work / "build" / NAME / out).glob(f"{PLACES[stage]}*"):  # of a run that was cut off
        shutil.rmtree(left)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipelines", stage, NAME, *words],
        cwd=work,
        env=os.environ | paths | environment,
        check=True,
    )
    return time.perf_counter() - start


def one_and_two(stage: str, work: Path, two: Mapping[str, str]) -> tuple[float, float]:
    """Seconds with one worker and with two."""
    alone = seconds_of(stage, work, "one")
    return alone, seconds_of(stage, work, "two", **two)


def folder_bytes(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory_of_a_text() -> float:
    """Bytes of memory that a stage that reads signals holds for each text: its key and its row; over a million of them."""
    import psutil

    before, count = psutil.Process().memory_info().rss, 1_000_000
    rows = {number.to_bytes(16, "little"): number for number in range(count)}
    return float(psutil.Process().memory_info().rss - before) / len(rows)


def measured(work: Path, texts: int) -> dict[str, float]:
    """All figures, by name."""
    from pipelines.exploring.front import read_front

    run(NAME, recipe(work, texts), work, ("validate", "teach", "label", "distill"))
    made = work / "build" / NAME
    count = len(np.load(made / "signals" / "keys.npy", mmap_mode="r"))
    found: dict[str, float] = {
        "texts": count,
        "bytes": folder_bytes(made / "signals") / count,
        "memory": memory_of_a_text(),
    }
    for stage, two in (("label", TWO), ("distill", {"SLM_FACTORY_RANKS": "2"}), ("explore", TWO)):
        found[f"{stage} 1"], found[f"{stage} 2"] = one_and_two(stage, work, two)
    found["points"] = len(read_front(made / "one" / "front").points)
    return found


def table(found: Mapping[str, float], conditions: str) -> str:
    """The measured figures, and what they come to at a size that nobody here has run."""
    rates = {
        "texts labelled a second": ("label", found["texts"]),
        "texts trained on a second, an elastic student, one pass": ("distill", found["texts"]),
        "points of a front an hour": ("explore", 3600 * found["points"]),
    }
    lines = [
        "## Measured",
        "",
        f"{machine()}; {conditions}. Written by `make bench-scale`: MiniLM teaches, {found['texts']:.0f} texts, one thread a worker; whole commands, from start to end.",
        "",
        "| | one worker | two | gain | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, (stage, amount) in rates.items():
        one, two = found[f"{stage} 1"], found[f"{stage} 2"]
        lines.append(f"| {name} | {amount / one:.1f} | {amount / two:.1f} | {one / two:.2f}x | {one:.0f}, {two:.0f} |")
    lines += [
        "",
        f"Signals take {found['bytes'] / 1e3:.1f} kB of disk a text, and {found['memory']:.0f} bytes of memory in each stage that reads them.",
    ]
    return "\n".join([*lines, "", *paper(found)])


def paper(found: Mapping[str, float]) -> list[str]:
    """What 100 M texts and 1,000 models would take, by these figures and nothing else."""
    label = MANY_TEXTS * found["label 1"] / found["texts"] / 3600
    train = MANY_TEXTS * found["distill 1"] / found["texts"] / 3600
    explore = MANY_MODELS * found["explore 1"] / 3600
    return [
        f"## On paper: {MANY_TEXTS:,} texts, {MANY_MODELS:,} models",
        "",
        "| | by the figures above |",
        "|---|---|",
        f"| label {MANY_TEXTS:,} texts | {label:,.0f} hours of one core |",
        f"| one pass of an elastic student over them | {train:,.0f} hours of one core |",
        f"| their signals | {MANY_TEXTS * found['bytes'] / 1e12:.2f} TB of disk |",
        f"| the keys of the signals in memory | {MANY_TEXTS * found['memory'] / 1e9:.0f} GB |",
        f"| {MANY_MODELS:,} fronts of this size | {explore:,.0f} hours of one core |",
    ]


def main(argv: Sequence[str]) -> int:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the tables go to")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder to build in; a run that was cut off goes on there"
    )
    parser.add_argument("--texts", type=int, default=8000, help="unlabelled texts")
    options = parser.parse_args(argv)
    disable_telemetry()
    quiet_libraries()
    work = options.work.resolve()
    os.environ["PREFECT_HOME"] = str(work / "prefect")  # before Prefect is imported
    from flows.server import prefect_api

    before = load()
    with prefect_api(work / "prefect", lambda: None) as url:
        os.environ["PREFECT_API_URL"] = url
        found = measured(work, options.texts)
    text = table(found, f"{before} at the start")
    write_section(options.page, "scale", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
