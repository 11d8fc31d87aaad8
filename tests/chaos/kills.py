"""SIGKILL of one process of a build at a seeded moment; then one clean command, and everything must be as if nothing had happened."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.ground import HANDED, MODEL, Ground, Place, check, gone, wait
from tests.chaos.servers import server, worker

#: Seconds in which a build whose stage was killed must have said so and ended.
END_SECONDS = 60.0
#: A build without its server goes on until the client's patience ends; this is how often it asks here (the default is five times).
IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "1"}


@dataclass(frozen=True)
class Killed:
    """A kill: when, in the build's own seconds, and how long until no process of it was left."""

    moment: float
    until_gone: float


def moments(ground: Ground, seed: int, victim: str, count: int) -> list[float]:
    """When to kill, in seconds from the build's start, drawn from the length of the undisturbed one."""
    drawn = random.Random(f"{seed} {victim}")
    return sorted(drawn.uniform(0.0, 0.95 * ground.seconds) for _ in range(count))


def kill(victim: str, ground: Ground, folder: Path, moment: float) -> Killed:
    """One trial. Raises AssertionError where the clean command afterwards leaves anything but the undisturbed build's."""
    place = ground.copy(folder)
    until_gone = TRIALS[victim](place, moment)
    code = place.build()
    assert code == 0, f"{folder}: the clean command ended with {code}\n{place.said()[-4000:]}"
    check(ground, place)
    return Killed(moment, until_gone)


def _flow(place: Place, moment: float) -> float:
    build = place.start("build", MODEL, *HANDED)
    _sleep_until(build, moment)
    build.kill()
    build.wait()
    return gone(place)


def _below(name: str) -> Callable[[Place, float], float]:
    """The process of a stage (`pipelines`), or DVC (`flows.repro`), of the stage that runs at the moment, or of the next."""

    def trial(place: Place, moment: float) -> float:
        build = place.start("build", MODEL, *HANDED)
        _sleep_until(build, moment)
        while build.poll() is None and not _kill_one(place, name):
            time.sleep(0.01)
        wait(place, lambda: build.poll() is not None, END_SECONDS, "the build goes on")
        return gone(place)

    return trial


def _kill_one(place: Place, module: str) -> bool:
    for process in place.processes():
        try:
            if process.cmdline()[1:3] == ["-m", module]:
                process.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def _worker(place: Place, moment: float) -> float:
    with worker(place) as (process, launch):
        launch("build", {"model": MODEL, "publish": "store", "commit": "HEAD"})
        time.sleep(moment)
        process.kill()
        process.wait()
        return gone(place)


def _server(place: Place, moment: float) -> float:
    with server(place.folder / "prefect") as running:
        build = place.start("build", MODEL, *HANDED, PREFECT_API_URL=running.api, **IMPATIENT)
        _sleep_until(build, moment)
        running.kill()
        wait(place, lambda: build.poll() is not None, 3 * END_SECONDS, "the build goes on")
        return gone(place)


def _sleep_until(build: subprocess.Popen[str], moment: float) -> None:
    end = time.monotonic() + moment
    while time.monotonic() < end and build.poll() is None:
        time.sleep(0.01)


#: Who is killed -> how.
TRIALS: dict[str, Callable[[Place, float], float]] = {
    "flow": _flow,
    "worker": _worker,
    "trainer": _below("pipelines"),
    "dvc": _below("flows.repro"),
    "server": _server,
}
