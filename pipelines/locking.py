"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pipelines.errors import ResourceError


def locked(folder: Path, what: str) -> int:
    """A descriptor of the folder that holds its lock until it is closed, or its process ends in whatever way.

    Raises ResourceError where another process holds it; `what` is what both want to write.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ResourceError(f"{folder}: another process writes {what} there; wait for it or end it") from error
    return descriptor
