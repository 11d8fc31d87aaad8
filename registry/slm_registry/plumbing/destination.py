"""The folder that a result is written to: new, or there and empty. All of the result appears in it, or nothing.

A new folder gets its name when it is whole. One that is there may be no other's place to rename to (a mounted volume,
the working folder, one below a read-only folder): the result is made in a hidden folder inside it and moved up.

<folder>/.slm-registry.lock         held by who writes
<folder>/.slm-registry.partial/     what is not whole yet
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from slm_registry.errors import UsageError
from slm_registry.plumbing.files import make_folders, removed
from slm_registry.plumbing.partial import locked

_LOCK, _PARTIAL = ".slm-registry.lock", ".slm-registry.partial"


def vacant(folder: Path) -> bool:
    """Whether a folder is new or empty, but for what a killed run left of its copy.

    Raises UsageError for anything but a folder, and where that run was moving its files up.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder; name a new or an empty one")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - {_LOCK, _PARTIAL} and _PARTIAL in found:
        raise UsageError(
            f"{folder}: another copy into it is under way, or was broken off; if none is, empty it and run it again"
        )
    return not found - {_LOCK, _PARTIAL}


@contextlib.contextmanager
def filled(folder: Path, last: str) -> Iterator[Path]:
    """An empty folder whose content becomes that of `folder`, which is vacant, when the block ends well.

    `last` is the name without which no reader takes the folder for whole. Raises UsageError where somebody filled the
    folder meanwhile.
    """
    if not folder.exists():
        make_folders(folder.absolute().parent)
        temporary = folder.absolute().parent / f".{folder.name}.{uuid.uuid4().hex}"
        with removed(temporary):
            temporary.mkdir()
            yield temporary
            # Over an empty folder this replaces it; over one that was filled meanwhile it fails.
            temporary.rename(folder)
        return
    folder = folder.absolute()
    with locked(folder / _LOCK), removed(folder / _LOCK), removed(folder / _PARTIAL):
        _check(folder)
        shutil.rmtree(folder / _PARTIAL, ignore_errors=True)
        (folder / _PARTIAL).mkdir()
        yield folder / _PARTIAL
        _check(folder)
        _move_up(folder, last)


def _check(folder: Path) -> None:
    strangers = {path.name for path in folder.iterdir()} - {_LOCK, _PARTIAL}
    if strangers:
        raise UsageError(f"{folder / min(strangers)} came there meanwhile; name a new or an empty folder")


def _move_up(folder: Path, last: str) -> None:
    moved: list[Path] = []
    try:
        for path in sorted((folder / _PARTIAL).iterdir(), key=lambda path: (path.name == last, path.name)):
            moved.append(path.rename(folder / path.name))
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
