"""Checkpoints of a process that is killed, without the process."""

from __future__ import annotations

from pathlib import Path

from pipelines.checkpoints import Checkpoints


class Killed(BaseException):
    """In place of SIGKILL: nothing in the code catches it."""


class Mortal(Checkpoints):
    """Killed when it has looked at the clock so many times, which it does before each batch; without seconds each batch is kept."""

    life = 10**9
    looks = 0

    def due(self) -> bool:
        """See Keeper."""
        self.looks += 1
        if self.looks > self.life:
            raise Killed
        return self.seconds == 0 or super().due()


def mortal(folder: Path, life: int, seconds: float = 0.0) -> Mortal:
    """Checkpoints with so many looks left."""
    made = Mortal(folder, "key", seconds)
    made.life = life
    made.open()
    return made


def lasting(folder: Path, key: str = "key", seconds: float = 1000.0) -> Checkpoints:
    """Checkpoints of a process that lives."""
    made = Checkpoints(folder, key, seconds)
    made.open()
    return made
