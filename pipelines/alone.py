"""One writer of an output at a time: a trainer that outlived its parent must not meet the one that was started in its place."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipelines.errors import ResourceError, TransientError


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold the lock beside an output; it goes with the process, however that ends.

    Raises TransientError where another process holds it, ResourceError where nothing can be locked there.
    """
    place = output.with_name(f"{output.name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place, output) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            place.unlink(missing_ok=True)  # while it is held: who opened it before finds that out


@contextmanager
def _locked(place: Path, output: Path) -> Iterator[IO[str]]:
    """The lock's file, locked, and still the one that stands there."""
    while True:
        with place.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise TransientError(
                    f"{output}: process {file.read().strip() or 'unknown'} is writing it; wait for it, or end it, and run the same command again"
                ) from error
            except OSError as error:
                raise ResourceError(
                    f"{place}: cannot be locked ({error.strerror}); build on a file system that has flock"
                ) from error
            if _stands_there(file, place):
                yield file
                return


def _stands_there(file: IO[str], place: Path) -> bool:
    """Whether its last holder has not removed it between our opening and our locking it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False
