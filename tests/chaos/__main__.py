"""`make chaos`: builds that are killed and disturbed at seeded moments, bounded by time; a table of what came of it.

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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pages import machine, write_section
from pipelines.environment import disable_telemetry

if TYPE_CHECKING:
    from tests.chaos.ground import Ground
    from tests.chaos.kills import Killed

#: Builds that go on at once.
AT_ONCE = 2


@dataclass(frozen=True)
class Session:
    """One run of this command: where it works, when no trial begins any more, and the projects that are copied."""

    folder: Path
    seed: int
    end: float
    grounds: dict[str, Future[Ground]]

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.end


def main(argv: Sequence[str]) -> int:
    """Run the parts that are asked for, in turn, while there is time."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True, help="moments at which each process is killed")
    parser.add_argument("--only", help="names of parts, with commas between them")
    parser.add_argument("--page", type=Path, help="page that the table is written to")
    given = parser.parse_args(argv)
    disable_telemetry()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["PREFECT_HOME"] = str(folder / "prefect")  # before Prefect is imported
    try:
        table, whole = _run(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table)
    if given.page:
        command = f"`make chaos MINUTES={given.minutes:g} SEED={given.seed} KILLS={given.kills}`"
        write_section(given.page, "chaos", f"Written by {command}. {machine()}.\n\n{table}")
    if not whole:
        print("the time was over before all was tried: give it more MINUTES, or fewer KILLS", file=sys.stderr)
    return 0 if whole else 1


def _run(given: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """The table, and whether there was time for all of it."""
    from tests.chaos.ground import TINY, TOY, make_ground
    from tests.chaos.servers import server

    parts = {
        name: part for name, part in _parts(given.kills).items() if not given.only or name in given.only.split(",")
    }
    with server(folder / "prefect") as running, ThreadPoolExecutor(AT_ONCE) as threads:
        environment = {"PREFECT_API_URL": running.api}
        needed = [kind for kind in (TOY, TINY) if any(part.kind == kind.model for part in parts.values())]
        grounds = {kind.model: threads.submit(make_ground, kind, folder / kind.model, environment) for kind in needed}
        session = Session(folder, given.seed, time.monotonic() + 60 * given.minutes, grounds)
        jobs = {name: [threads.submit(trial, session) for trial in part.trials] for name, part in parts.items()}
        try:
            found = {name: [job.result() for job in done] for name, done in jobs.items()}
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    lengths = " s, ".join(f"{grounds[kind.model].result().seconds:.0f}" for kind in needed)
    rows = [f"| {name} | {parts[name].sum_up(results)} |" for name, results in found.items()]
    whole = all(result is not None for results in found.values() for result in results)
    table = "\n".join([f"An undisturbed build takes {lengths} s.", "", "| what | came of it |", "|---|---|", *rows])
    return table, whole


@dataclass(frozen=True)
class Part:
    """Trials in one project, and what is said of their results; None where the time was over."""

    kind: str
    trials: Sequence[Callable[[Session], Killed | str | None]]
    sum_up: Callable[[Sequence[Killed | str | None]], str]


def _parts(kills: int) -> dict[str, Part]:
    from tests.chaos.faults import FAULTED
    from tests.chaos.kills import TRIALS

    killed = {
        f"SIGKILL of the {victim}": Part(
            kind.model, [partial(_kill, victim, kind.model, number, kills) for number in range(kills)], _kills
        )
        for victim, (kind, _) in TRIALS.items()
    }
    return killed | {
        name: Part(kind.model, [partial(_fault, name, kind.model)], _said) for name, (kind, _) in FAULTED.items()
    }


def _kill(victim: str, kind: str, number: int, kills: int, session: Session) -> Killed | None:
    from tests.chaos.kills import kill, moments

    ground = session.grounds[kind].result()
    if session.late():
        return None
    place = session.folder / f"{victim}-{number}"
    found = kill(victim, ground, place, moments(ground, session.seed, victim, kills)[number])
    shutil.rmtree(place)
    print(f"{victim} killed after {found.moment:.1f} s: gone in {found.until_gone:.1f} s", flush=True)
    return found


def _kills(found: Sequence[Killed | str | None]) -> str:
    from tests.chaos.kills import Killed

    done = [one for one in found if isinstance(one, Killed)]
    slowest = f"; no process was left after {max(one.until_gone for one in done):.1f} s" if done else ""
    return f"{len(done)} of {len(found)}: one clean command made the same bytes, one version, one commit{slowest}"


def _fault(name: str, kind: str, session: Session) -> str | None:
    from tests.chaos.faults import FAULTED, Unavailable

    ground = session.grounds[kind].result()
    if session.late():
        return None
    place = session.folder / name.replace(" ", "-").replace("'", "")
    try:
        said = FAULTED[name][1](ground, place, session.seed)
    except Unavailable as missing:
        return f"not tried: {missing}"
    shutil.rmtree(place, ignore_errors=True)
    print(f"{name}: {said}", flush=True)
    return said


def _said(found: Sequence[Killed | str | None]) -> str:
    return str(found[0] or "not tried: no time was left")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
