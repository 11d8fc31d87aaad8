"""Small works for tests of a fan, in a module that a worker's process imports in no time."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DivergedError, ModelError


@dataclass(frozen=True)
class Doing:
    """Does what an item says."""

    folder: Path

    def __call__(self, item: str) -> str:
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "sleep":
            (self.folder / f"asleep-{os.getpid()}").touch()
            time.sleep(120)
        if item == "refuse":
            raise ModelError("model.onnx: differs from torch by 3.0")
        if item == "diverge":
            raise DivergedError("the loss is nan; lower training.learning_rate", None)
        if item == "break":
            raise KeyError("nobody foresaw this")
        (self.folder / item).touch()
        return f"{item} done"


class Missing:
    """A work whose folder is not there where it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return opened_elsewhere, ("/nowhere/student",)

    def __call__(self, item: str) -> str:
        return item


def opened_elsewhere(folder: str) -> Missing:
    raise ModelError(f"{folder}: no such folder; a model is a folder with config.json")
