"""`make unattended`: an hour on a schedule of one minute. Data change at random, processes are killed; each change is published once, in order.

What a service manager would do is done here: server and worker are started again where they are gone (`python -m flows.service up`).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from benchmarks.pages import machine, write_section
from flows.server import free_port
from pipelines.environment import disable_telemetry
from tests.chaos.ground import TINY, Place
from tests.flows.toy import REPOSITORY
from tests.tiny import TAILS

#: Seconds between two looks, and between two things that happen, least and most.
TICK, PAUSES = 5.0, (20.0, 150.0)
#: At the end: how long the last change may take until it is published, in seconds.
LAST = 900.0
#: Of all that happens, the share that is a change of the data; the rest are kills.
CHANGES = 0.5


@dataclass
class Hour:
    """A project on its schedule, and what has happened to it."""

    place: Place
    port: int
    drawn: random.Random
    #: The rows that were committed, and the commits.
    changes: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0

    def service(self, command: str) -> None:
        """`make up`, `make down`."""
        subprocess.run(
            [sys.executable, "-m", "flows.service", command, "--port", str(self.port)],
            cwd=self.place.project,
            env=self.place.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def keep_up(self) -> None:
        """Start again what is gone."""
        if not all(self.place.running("-m", "prefect", name) for name in ("server", "worker")):
            self.restarts += 1
            self.service("up")

    def change(self) -> None:
        """A row more, where the last change is published; another one is for later."""
        if len(self.published()) <= len(self.changes):
            return
        row = f"parcel number {len(self.changes)} {self.drawn.choice(TAILS)},parcel"
        with (self.place.project / "data" / "tiny.csv").open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")
        self.place.git("commit", "-qam", f"data {len(self.changes)}")
        self.changes.append(self.place.git("rev-parse", "HEAD").strip())
        print(f"{time.strftime('%X')} change {len(self.changes)}", flush=True)

    def kill(self) -> None:
        """SIGKILL of one process: server, worker, a run, DVC, a stage."""
        victims: dict[str, list[psutil.Process]] = {}
        for one in self.place.processes():
            with suppress(psutil.NoSuchProcess):
                words = " ".join(one.cmdline()[1:4])
                for name in (name for name, part in VICTIMS.items() if part in words):
                    victims.setdefault(name, []).append(one)
        if victims:
            name = self.drawn.choice(sorted(victims))
            victims[name][0].send_signal(signal.SIGKILL)
            self.kills[name] += 1
            print(f"{time.strftime('%X')} kill {name}", flush=True)

    def published(self) -> list[str]:
        """The versions, the oldest first."""
        return [row.version for row in reversed(self.place.registry().list(self.place.kind.model))]

    def runs(self) -> Counter[str]:
        """How the runs of the build ended, by the name of their state."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        found: Counter[str] = Counter()
        url = f"http://127.0.0.1:{self.port}/api"
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            while page := client.read_flow_runs(limit=200, offset=found.total()):
                found.update(str(run.state_name) for run in page)
        return found


#: Who may be killed -> what stands in its command.
VICTIMS = {
    "server": "-m prefect server",
    "worker": "-m prefect worker",
    "run": "-m prefect.",
    "dvc": "-m flows.repro",
    "stage": "-m pipelines",
}


def begin(folder: Path, seed: int) -> Hour:
    """The tiny project, its first version published, deployed to run each minute."""
    place = Place(TINY, folder)
    TINY.make(place.project)
    for name in ("prefect.toml", "telemetry.env"):
        shutil.copy(REPOSITORY / name, place.project)
    deployed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    (build,) = [
        one
        for one in deployed["deployments"]
        if one["entrypoint"] == "flows/build.py:build" and one["schedules"][0]["slug"] == "daily"
    ]
    build["parameters"] |= {"model": TINY.model, "commit": "HEAD"}
    build["schedules"] = [{"slug": "each-minute", "cron": "* * * * *", "timezone": "UTC"}]
    deployed["deployments"] = [build]
    (place.project / "prefect.yaml").write_text(yaml.safe_dump(deployed), encoding="utf-8")
    place.dvc("remote", "add", "-d", "storage", "../remote")
    place.git("add", "-A")
    place.git("commit", "-qm", "scheduled")
    hour = Hour(place, free_port(), random.Random(seed))
    assert place.build() == 0, place.said()
    hour.service("up")
    return hour


def let_it_run(hour: Hour, seconds: float) -> None:
    """Change and kill for so long, then wait until the last change is published."""
    end, due = time.monotonic() + seconds, time.monotonic() + PAUSES[0]
    while time.monotonic() < end:
        time.sleep(TICK)
        hour.keep_up()
        if time.monotonic() > due:
            due = time.monotonic() + hour.drawn.uniform(*PAUSES)
            happens: Callable[[], None] = hour.change if hour.drawn.random() < CHANGES else hour.kill
            happens()
    end = time.monotonic() + LAST
    while len(hour.published()) <= len(hour.changes) and time.monotonic() < end:
        time.sleep(TICK)
        hour.keep_up()


def check(hour: Hour) -> None:
    """Each change published once, in order, and nothing else. Raises AssertionError."""
    place, registry = hour.place, hour.place.registry()
    expected = [f"1.0.{number}" for number in range(len(hour.changes) + 1)]
    assert hour.published() == expected, f"{hour.published()} for {len(hour.changes)} changes"
    commits = [registry.show(f"{TINY.model}@{version}").lineage["git"]["commit"] for version in expected[1:]]
    parents = [place.git("rev-parse", f"{commit}^").strip() for commit in commits]
    assert parents == hour.changes, f"{parents} are not {hour.changes}"
    subjects = place.git("log", "--reverse", "--format=%s").splitlines()
    wanted = [f"Build {TINY.model}"]
    for number in range(len(hour.changes)):
        wanted += [f"data {number}", f"Build {TINY.model}"]
    assert subjects[subjects.index(wanted[0]) :] == wanted, subjects
    operations = Counter(entry.op for entry in registry.log(TINY.model))
    assert operations == {"publish": len(expected), "alias": len(expected)}, operations
    assert registry.resolve(f"{TINY.model}@candidate").version == expected[-1]


def main(argv: Sequence[str]) -> int:
    """Leave a project alone for a while and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hour", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--page", type=Path, help="page that the result is written to")
    given = parser.parse_args(argv)
    disable_telemetry()
    folder = Path(tempfile.mkdtemp(prefix="hour-"))
    os.environ["PREFECT_HOME"] = str(folder / "home")
    hour = begin(folder / "place", given.seed)
    try:
        let_it_run(hour, 60 * given.minutes)
        hour.keep_up()
        runs = hour.runs()
        check(hour)
    finally:
        hour.service("down")
    left = hour.place.processes()
    assert not left, f"left behind: {left}"
    kills = ", ".join(f"{name} {count}" for name, count in sorted(hour.kills.items()))
    ended = ", ".join(f"{name} {count}" for name, count in sorted(runs.items()))
    said = (
        f"{given.minutes:g} minutes on a schedule of one minute: {len(hour.changes)} changes of the data, each published once and in order; "
        f"{hour.kills.total()} kills ({kills}), server or worker started again {hour.restarts} times. Runs by their states: {ended}."
    )
    print(said)
    if given.page:
        command = f"`make unattended MINUTES={given.minutes:g} SEED={given.seed}`"
        write_section(given.page, "unattended", f"{said} Written by {command}. {machine()}.")
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
