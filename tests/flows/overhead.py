"""`make overhead`: what the flow adds to `dvc repro`, on a toy project whose stages take no time, both sides in turns."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.pages import load, machine, write_section
from pipelines.environment import disable_telemetry
from tests.flows.toy import STAGES, Toy, make_toy

#: Seconds that the issue of it allows: a stage, in all, and of a scheduled run where nothing changed.
A_STAGE, IN_ALL, NOTHING = 1.0, 10.0, 15.0
PLAIN, SERVER, OWN = "dvc repro", "flow, a server that runs", "flow, a server of its own"
TIMES = ("first", "nothing", "run", "again")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def round_of(folder: Path, api: str) -> dict[str, dict[str, float]]:
    """One round, each side in a project of its own: the first build, nothing to do, and all stages again for data that changed."""
    sides: dict[str, tuple[Callable[[Toy], object], Callable[[Toy], object]]] = {
        PLAIN: (lambda toy: toy.dvc("repro", "gate@alpha"), lambda toy: toy.dvc("status", "--with-deps", "gate@alpha")),
        SERVER: (lambda toy: build(toy, api), lambda toy: build(toy, api, "--update")),
        OWN: (lambda toy: build(toy, ""), lambda toy: build(toy, "", "--update")),
    }
    found = {}
    for number, (name, (run, again)) in enumerate(sides.items()):
        toy = make_toy(folder / str(number))
        times = {
            "first": seconds(partial(run, toy)),
            "nothing": seconds(partial(run, toy)),
            "run": seconds(partial(again, toy)),
        }
        with (toy.folder / "data" / "alpha.csv").open("a") as data:
            data.write("more,y\n")
        found[name] = times | {"again": seconds(partial(run, toy))}
    return found


def build(toy: Toy, api: str, *more: str) -> None:
    """`python -m flows build`, published. With `--update` a flow is begun in any case."""
    code, output = toy.flows("build", "alpha", "--publish", "store", *more, PREFECT_API_URL=api)
    if code:
        raise SystemExit(output)


def table(rounds: Sequence[dict[str, dict[str, float]]], conditions: str) -> str:
    """Medians, and what the flow adds."""
    median = {
        side: {what: statistics.median(found[side][what] for found in rounds) for what in TIMES} for side in rounds[0]
    }
    plain, ours = median[PLAIN], median[SERVER]
    ratio = ours["nothing"] / plain["run"]
    lines = [
        "# What the flow adds to `dvc repro`",
        "",
        f"{machine()}; {conditions}. Written by `make overhead`: a project of {len(STAGES)} stages that take no time, medians of {len(rounds)} rounds in turns.",
        "All stages run again since the data changed. The flow also publishes, leaves its pages and counts what each stage took; `dvc repro` runs all stages in one process of DVC's, the flow one a stage.",
        "A stage: what running them all takes longer than a run that finds nothing changed, by stage, less the same of `dvc repro`. The first build of a project also makes the database of a server of its own.",
        f"Allowed are {A_STAGE:g} s a stage, {IN_ALL:g} s in all, and {NOTHING:g} s of a run that finds nothing changed. The command finds that without a flow, in {ratio:.2f} times the {plain['run']:.1f} s of `dvc status --with-deps`.",
        "",
        "| | all stages, s | more than `dvc repro`, s | a stage, s | nothing changed: the command, s | a flow, s | the first build, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, took in median.items():
        more = took["again"] - plain["again"]
        base = took["nothing"] if took is plain else took["run"]
        stage = (took["again"] - base - (plain["again"] - plain["nothing"])) / len(STAGES)
        run = "" if took is plain else f"{took['run']:.1f}"
        lines.append(
            f"| {name} | {took['again']:.1f} | {more:.1f} | {stage:.2f} | {took['nothing']:.1f} | {run} | {took['first']:.1f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(prog="python -m tests.flows.overhead", description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page that the table goes to")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    disable_telemetry()
    before = load()
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        os.environ["PREFECT_HOME"] = str(folder / "prefect")  # before Prefect is imported
        from flows.server import prefect_api

        with prefect_api(folder / "prefect", lambda: None) as api:
            del os.environ["PREFECT_HOME"]
            rounds = [round_of(folder / str(at), api) for at in range(options.rounds)]
    text = table(rounds, f"{before} at the start")
    write_section(options.page, "overhead", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
