"""What a kill or a full disk leaves of DVC's own files. It writes them in place, so each can be cut short, and DVC then refuses every command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.graph import repository_lock
from flows.receipt import FOLDER
from flows.remote import is_record
from pipelines.errors import ResourceError

#: Begins the line in which git marks that two versions of a file could not be merged: somebody's work, not damage.
CONFLICT = b"<<<<<<< "


def mend(root: Path) -> list[str]:
    """Put DVC's files into a state that DVC can go on from; what was done, a sentence each. Whole files are left alone.

    A stage that was built and is not in the record any more is not run again: DVC's run cache has it. Raises ResourceError where the disk is
    still full, or refuses.
    """
    try:
        held = _mend_holders(root / ".dvc" / "tmp")
        with repository_lock(root) as repo:
            said = [held, _mend_record(root), _mend_runs(Path(repo.cache.legacy.path) / "runs")]
    except OSError as error:
        raise ResourceError(
            f"DVC's own files cannot be mended: {error}; free some space, or see to the right to write there"
        ) from error
    return [one for one in said if one]


def _mend_runs(folder: Path) -> str | None:
    """DVC's records of runs: what is left of one that was being written, and a folder without any, which stops DVC at that stage."""
    left = 0
    for key in folder.glob("*/*/"):
        for path in key.iterdir():
            if not is_record(path.name):
                path.unlink()
                left += 1
        if not any(key.iterdir()):
            key.rmdir()
            left += 1
    return f"{folder}: {left} remains of records that were being written, removed" if left else None


def _mend_record(root: Path) -> str | None:
    record = root / "dvc.lock"
    if not record.exists():
        return None
    kept, damaged = root / FOLDER / "dvc.lock.damaged", record.read_bytes()
    if _seen_whole(damaged, kept.with_name("dvc.lock.whole")) or b"\n" + CONFLICT in b"\n" + damaged:
        return None
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(damaged)
    committed = subprocess.run(
        ["git", "-C", os.fspath(root), "show", "HEAD:./dvc.lock"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if committed.returncode or not _whole(committed.stdout):
        record.unlink()
        return f"dvc.lock was cut short, and no commit holds one: begun anew ({kept} is what it was)"
    draft = kept.with_name("dvc.lock.partial")
    draft.write_bytes(committed.stdout)
    draft.replace(record)
    return f"dvc.lock was cut short: that of the last commit stands in its place ({kept} is what it was)"


def _seen_whole(content: bytes, seen: Path) -> bool:
    """As _whole; `seen` keeps the digest of what was looked at last, since looking takes 30 ms for each model that the record holds."""
    digest = hashlib.sha256(content).hexdigest().encode()
    if seen.exists() and seen.read_bytes() == digest:
        return True
    whole = _whole(content)
    if whole:
        with suppress(OSError):  # on a full disk it is looked at again
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.write_bytes(digest)
    return whole


def _whole(content: bytes) -> bool:
    """Whether DVC could read this as its record."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(content, yaml.CSafeLoader))
    except (yaml.YAMLError, Invalid, UnicodeDecodeError):
        return False
    return True


def _mend_holders(folder: Path) -> str | None:
    """DVC's list of who reads and writes what; it removes the dead from it, but not those whose number another program has got since."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
    from voluptuous import Invalid

    place = folder / RWLOCK_FILE
    with make_lock(os.fspath(folder / RWLOCK_LOCK), tmp_dir=os.fspath(folder), hardlink_lock=False, wait=True):
        try:
            held = SCHEMA(json.loads(place.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, Invalid):
            place.unlink()
            return f"{place} was cut short: begun anew"
        gone = {pid for pid in _holders(held) if not _may_hold(pid)}
        if not gone:
            return None
        write = {path: one for path, one in held["write"].items() if one["pid"] not in gone}
        read = {path: [one for one in those if one["pid"] not in gone] for path, those in held["read"].items()}
        place.write_text(json.dumps({"write": write, "read": read}), encoding="utf-8")
    return f"{place}: {', '.join(map(str, sorted(gone)))} held locks and are no processes of DVC's any more"


def _holders(held: Mapping[str, Any]) -> set[int]:
    readers = {one["pid"] for those in held["read"].values() for one in those}
    return readers | {one["pid"] for one in held["write"].values()}


def _may_hold(pid: int) -> bool:
    """Whether a process lives that may be DVC, or a Python program that uses it."""
    try:
        words = " ".join(psutil.Process(pid).cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
    return "python" in words or "dvc" in words
