"""SIGKILL of one process of a build at a seeded moment; then one clean command, and everything must be as if nothing had happened."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.chaos.ground import HANDED, TINY, TOY, Ground, Kind, Place, check, gone, wait
from tests.chaos.servers import server, worker

#: Seconds in which a build whose stage was killed must have said so and ended.
END_SECONDS = 60.0
#: Of an undisturbed build's length, the latest moment: others are faster.
LATEST = 0.8
#: A build without its server goes on until the client's patience ends; this is how often it asks here (the default is five times).
IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "1"}


class TooLate(Exception):
    """There was nobody left to kill."""


@dataclass(frozen=True)
class Killed:
    """A kill: when, in the build's own seconds, and how long until no process of it was left."""

    moment: float
    until_gone: float


def moments(ground: Ground, seed: int, victim: str, count: int) -> list[float]:
    """When to kill, in seconds from the build's start, drawn from the length of the undisturbed one."""
    drawn = random.Random(f"{seed} {victim}")
    return sorted(drawn.uniform(0.0, LATEST * ground.seconds) for _ in range(count))


def kill(victim: str, ground: Ground, folder: Path, moment: float) -> Killed:
    """One trial. Raises AssertionError where the clean command afterwards leaves anything but the undisturbed build's."""
    for attempt in count():
        # A place of its own each time: the registry's client would take the same store, as it was before, for one that was rolled back.
        place = ground.copy(folder / str(attempt))
        try:
            until_gone = TRIALS[victim][1](place, moment)
            break
        except TooLate:  # this build was faster than the undisturbed one
            moment *= 0.75
    code = place.build()
    assert code == 0, f"{folder}: the clean command ended with {code}\n{place.said()[-4000:]}"
    check(ground, place)
    return Killed(moment, until_gone)


def _flow(place: Place, moment: float) -> float:
    build = place.start("build", place.kind.model, *HANDED)
    _sleep(place, build, moment)
    build.kill()
    build.wait()
    return gone(place)


def _stage(place: Place, moment: float) -> float:
    """The process of the stage that runs at the moment, or of the next."""
    return _below(place, moment, place.kind.stage)


def _dvc(place: Place, moment: float) -> float:
    return _below(place, moment, ("-m", "flows.repro"))


def _over(place: Place, build: subprocess.Popen[str]) -> bool:
    """Whether a build has ended. Raises AssertionError where that was not well: nobody has disturbed it yet."""
    code = build.poll()
    assert not code, f"{place.folder}: undisturbed, the build ended with {code}\n{place.said()[-4000:]}"
    return code is not None


def _below(place: Place, moment: float, words: tuple[str, ...]) -> float:
    build = place.start("build", place.kind.model, *HANDED)
    _sleep(place, build, moment)
    while not (found := place.running(*words)):
        if _over(place, build):
            raise TooLate
        time.sleep(0.01)
    found[0].kill()
    wait(place, lambda: build.poll() is not None, END_SECONDS, "the build goes on")
    return gone(place)


def _worker(place: Place, moment: float) -> float:
    with worker(place) as (process, launch):
        launch("build", {"model": place.kind.model, "publish": "store", "commit": "HEAD"})
        wait(place, lambda: len(place.processes()) > 1, END_SECONDS, "the worker starts nothing")
        time.sleep(moment)
        if len(place.processes()) == 1:
            raise TooLate
        process.kill()
        process.wait()
        return gone(place)


def _server(place: Place, moment: float) -> float:
    with server(place.folder / "prefect") as running:
        build = place.start("build", place.kind.model, *HANDED, PREFECT_API_URL=running.api, **IMPATIENT)
        _sleep(place, build, moment)
        running.kill()
        wait(place, lambda: build.poll() is not None, 3 * END_SECONDS, "the build goes on")
        return gone(place)


def _sleep(place: Place, build: subprocess.Popen[str], seconds: float) -> None:
    """Let a build go on for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if _over(place, build):
            raise TooLate
        time.sleep(0.01)


#: Who is killed -> how, and in which project.
TRIALS: dict[str, tuple[Kind, Callable[[Place, float], float]]] = {
    "flow": (TOY, _flow),
    "worker": (TOY, _worker),
    "dvc": (TOY, _dvc),
    "server": (TOY, _server),
    "trainer": (TINY, _stage),
}
