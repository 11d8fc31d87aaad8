"""Publishes in children that kill themselves at each step; run as `python crash_driver.py WORK BUNDLE`.

A step is a call of a store's method, or of the system's fsync, link and replace below it. For each step two children:
one dies before it, one after. Prints the number of steps. Runs apart from pytest because it forks.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_registry import Registry
from slm_registry.stores.folder import FolderStore

METHODS = ("get", "stream", "size", "create", "put_blob", "put", "delete", "listing")


class Bomb:
    """Counts steps, and kills the process before or after step `at`."""

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.steps = at, when, 0
        self.lock = threading.Lock()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            with self.lock:
                self.steps += 1
                mine = self.steps == self.at
            if mine and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **options)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped


def publish(work: Path, bundle: Path, bomb: Bomb) -> None:
    for name in METHODS:
        setattr(FolderStore, name, bomb.wrap(getattr(FolderStore, name)))
    # What a killed process has written stays written without fsync too; os.fstat spares the wait, and fails where fsync would.
    os.fsync, os.link = bomb.wrap(os.fstat), bomb.wrap(os.link)
    Path.replace = bomb.wrap(Path.replace)  # type: ignore[method-assign]
    # Signed, where $SLM_REGISTRY_KEY names a key.
    Registry(work, cache=work.parent / "cache").publish(bundle, "m", lineage={}, alias="candidate")


def survives(start: Path, work: Path, bundle: Path, bomb: Bomb) -> bool:
    """Publish into a copy of `start` in a child. Whether it came to its end."""
    shutil.copytree(start, work)
    child = os.fork()
    if child == 0:
        publish(work, bundle, bomb)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, f"the child failed by itself: {status}"
    return True


def main(root: Path, bundle: Path) -> int:
    for step in range(1, 1000):
        for when in ("before", "after"):
            if survives(root / "start", root / f"{step:03d}-{when}", bundle, Bomb(step, when)):
                return step - 1
    raise AssertionError("publish has no end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
