"""`make chaos`: builds of a tiny model that are killed and disturbed at seeded moments, bounded by time; a table of what came of it.

The first thing that does not hold ends it, with what the builds printed, and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.pages import machine, write_section
from pipelines.environment import disable_telemetry

#: Kills of each process, and how many builds go on at once.
KILLS, AT_ONCE = 10, 2


def main(argv: Sequence[str]) -> int:
    """Run the parts that are asked for, in turn, while there is time."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", help="names of parts, with commas between them")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--page", type=Path, help="page that the table is written to")
    given = parser.parse_args(argv)
    disable_telemetry()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["PREFECT_HOME"] = str(folder / "prefect")  # before Prefect is imported
    try:
        return _run(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(given: argparse.Namespace, folder: Path) -> int:
    from tests.chaos.ground import make_ground
    from tests.chaos.servers import server

    end = time.monotonic() + 60 * given.minutes
    with server(folder / "prefect") as running:
        ground = make_ground(folder, {"PREFECT_API_URL": running.api})
        print(f"an undisturbed build takes {ground.seconds:.1f} s", flush=True)
        rows = [
            (name, part(ground, folder, given.seed, given.kills, end))
            for name, part in parts().items()
            if not given.only or name in given.only.split(",")
        ]
    table = "\n".join(["| what | came of it |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows)])
    print(table)
    if given.page:
        command = f"`make chaos MINUTES={given.minutes:g} SEED={given.seed}`"
        write_section(
            given.page,
            "chaos",
            f"Written by {command}; an undisturbed build takes {ground.seconds:.0f} s. {machine()}.\n\n{table}",
        )
    return 0


def parts() -> dict[str, Callable[..., str]]:
    """What is done, by name: (ground, folder, seed, kills, end) -> a sentence."""
    from tests.chaos.faults import FAULTED
    from tests.chaos.kills import TRIALS

    return {name: _killing(name) for name in TRIALS} | {name: _faulting(name) for name in FAULTED}


def _killing(victim: str) -> Callable[..., str]:
    from tests.chaos.kills import kill, moments

    def part(ground: Any, folder: Path, seed: int, kills: int, end: float) -> str:
        def trial(numbered: tuple[int, float]) -> float | None:
            number, moment = numbered
            if time.monotonic() > end:
                return None
            place = folder / f"{victim}-{number}"
            killed = kill(victim, ground, place, moment)
            shutil.rmtree(place)
            print(f"{victim} killed at {moment:.1f} s: gone in {killed.until_gone:.1f} s", flush=True)
            return killed.until_gone

        with ThreadPoolExecutor(AT_ONCE) as threads:
            drawn = enumerate(moments(ground, seed, victim, kills))
            found = [one for one in threads.map(trial, drawn) if one is not None]
        slowest = f"; no process of it left after {max(found):.1f} s at most" if found else ""
        return f"{len(found)} of {kills} kills: one clean command, the same bytes, one version, one commit{slowest}"

    return part


def _faulting(name: str) -> Callable[..., str]:
    from tests.chaos.faults import FAULTED, Unavailable

    def part(ground: Any, folder: Path, seed: int, kills: int, end: float) -> str:
        if time.monotonic() > end:
            return "no time left"
        place = folder / name.replace(" ", "-").replace("'", "")
        try:
            said = FAULTED[name](ground, place, seed)
        except Unavailable as missing:
            return f"not tried: {missing}"
        shutil.rmtree(place, ignore_errors=True)
        print(f"{name}: {said}", flush=True)
        return said

    return part


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
