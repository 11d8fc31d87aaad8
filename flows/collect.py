"""The flow that clears away what nothing refers to: blobs in a registry, and in DVC's cache where that is asked for."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Failed, State
from slm_registry import Registry
from slm_registry.errors import RegistryError
from slm_registry.trust.memory import Witness
from slm_registry.upkeep import gc

from flows import child
from flows.console import without_tracebacks
from flows.errors import FlowError, GraphError
from flows.graph import find_root
from flows.stage import child_environment
from pipelines.errors import FactoryError

DAY = 24 * 3600.0


@dataclass(frozen=True)
class Cleared:
    """Blobs that a collection removed, marked for a later one, and kept; the bytes that it freed."""

    removed: int
    marked: int
    kept: int
    bytes: int


@flow(name="gc", flow_run_name="gc · {registry}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def collect(registry: str, grace_days: float = 7.0, cache: bool = False) -> Cleared | State[Any]:
    """Remove what nothing refers to any more. A blob is marked by one run and removed by a later one.

    Args:
        registry: Registry to clear, a folder or s3://BUCKET/PREFIX.
        grace_days: Younger blobs are left alone: a publication may be under way.
        cache: Also remove from DVC's cache on this machine what no commit of this repository names. Refused where others may share the cache.
    """
    try:
        with child.ends_with_its_worker(), without_tracebacks(FlowError, FactoryError, RegistryError):
            found = _collect(registry, grace_days)
            if cache:
                _clear_cache(find_root(Path.cwd()))
    except (FlowError, FactoryError, RegistryError) as error:
        return Failed(message=f"{type(error).__name__}: {error}", data=error)
    return found


def _collect(address: str, grace_days: float) -> Cleared:
    registry = Registry(address)
    witness = Witness(registry.cache.root, registry.store)
    done = gc.collect(registry.store, registry.actor, grace=grace_days * DAY, delete=True, witness=witness)
    freed = sum(item.size for item in done.removed)
    found = Cleared(len(done.removed), len(done.marked), done.kept, freed)
    get_run_logger().info(
        "%s: %s blobs removed (%s bytes), %s marked, %s kept", address, found.removed, freed, found.marked, found.kept
    )
    return found


def _cache_of(root: Path) -> Path:
    from dvc.repo import Repo

    with Repo(os.fspath(root)) as repo:
        return Path(repo.cache.local.path).resolve()


def _clear_cache(root: Path) -> None:
    """What no commit names goes; the record of runs stays, so a stage that is built again costs its time and nothing else."""
    place = _cache_of(root)
    if not place.is_relative_to(root.resolve()):
        raise GraphError(
            f"{place}: DVC's cache lies outside {root}; other projects may keep theirs there, so it is not cleared by the names of this one's"
        )
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "gc", "--force", "--workspace", "--all-commits"]
    said: list[str] = []

    def each(line: str) -> None:
        said.append(line)
        get_run_logger().info(line)

    if child.run(command, cwd=root, env=child_environment(), stop=threading.Event(), each=each):
        raise GraphError(f"`dvc gc` failed: {said[-1] if said else 'it said nothing'}")
