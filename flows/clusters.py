"""Who does the work of a fan: `processes:N` of this machine, the Dask cluster at `dask:ADDRESS`, the Ray cluster at `ray:ADDRESS`.

Threads are not among them: the ONNX exporter and torch's settings (threads, seeds, deterministic kernels) are one for a process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.errors import FanError, TransientError


class Cluster(Protocol):
    """Some workers. Its text is the one that names it."""

    def room(self, threads: int) -> int | None:
        """How many items with so many threads each fit at once; None where only the cluster knows."""

    def runner(self, threads: int) -> Any:
        """A Prefect task runner over them."""

    def check(self, runner: Any) -> None:
        """Raise TransientError where nobody is there, FanError where they are started so that results could differ."""

    def cancel(self, future: Any) -> None:
        """Take back an item that nobody has begun."""

    def abandon(self) -> None:
        """End what is still being done for nobody, where that can be."""


def cluster_of(workers: str) -> Cluster:
    """The workers of a text. Raises FanError where it names none, or their package is missing."""
    kind, _, where = workers.partition(":")
    if kind == "processes" and where.isdecimal() and int(where) > 0:
        return Processes(int(where))
    if kind in ("dask", "ray") and where:
        _require(kind, workers)
        return Dask(where) if kind == "dask" else Ray(where)
    raise FanError(f"workers {workers!r}: none such; say processes:N, dask:ADDRESS or ray:ADDRESS")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, started when the first item comes."""

    count: int

    def __str__(self) -> str:
        return f"processes:{self.count}"

    def room(self, threads: int) -> int:
        """No more than its cores hold: two trainings on one core take longer than one after the other, and the second may be for nothing."""
        return max(1, min(self.count, _cores() // threads))

    def runner(self, threads: int) -> Any:
        """As Cluster says."""
        from prefect.task_runners import ProcessPoolTaskRunner

        from flows.fanout import prepare_process

        return ProcessPoolTaskRunner(max_workers=self.room(threads), initializer=prepare_process)

    def check(self, runner: Any) -> None:
        """A pool tells by itself when a process is gone."""

    def cancel(self, future: Any) -> None:
        """As Cluster says."""
        future.cancel()

    def abandon(self) -> None:
        """Kill them: all that they hold is theirs alone, and a training does not end when asked to."""
        import multiprocessing

        for process in multiprocessing.active_children():
            process.kill()


@dataclass(frozen=True)
class Dask:
    """A Dask cluster, by its scheduler's address."""

    address: str

    def __str__(self) -> str:
        return f"dask:{self.address}"

    def room(self, threads: int) -> None:
        """As Cluster says."""

    def runner(self, threads: int) -> Any:
        """As Cluster says."""
        from prefect_dask import DaskTaskRunner

        return DaskTaskRunner(address=self.address)

    def check(self, runner: Any) -> None:
        """As Cluster says. Threads of one worker would change each other's settings."""
        threads = _asked(self, lambda: dict(runner.client.nthreads()))
        if not threads:
            raise TransientError(f"{self}: no worker is there; start some with `dask worker --nthreads 1`")
        many = next((name for name, count in threads.items() if count > 1), None)
        if many is not None:
            raise FanError(
                f"{self}: worker {many} has {threads[many]} threads, which would change each other's settings; "
                "start it with `dask worker --nthreads 1 --nworkers N`"
            )

    def cancel(self, future: Any) -> None:
        """As Cluster says."""
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing to take back
            future.cancel()

    def abandon(self) -> None:
        """Dask cannot end what a worker has begun; it runs out there, and nobody reads it."""


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, by its address."""

    address: str

    def __str__(self) -> str:
        return f"ray:{self.address}"

    def room(self, threads: int) -> None:
        """As Cluster says."""

    def runner(self, threads: int) -> Any:
        """As Cluster says."""
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(address=self.address, init_kwargs={"log_to_driver": False, "logging_level": "ERROR"})

    def check(self, runner: Any) -> None:
        """As Cluster says."""
        import ray

        if not any(node["Alive"] for node in _asked(self, ray.nodes)):
            raise TransientError(f"{self}: no node is there; start one with `ray start`")

    def cancel(self, future: Any) -> None:
        """Not asked of Ray: its driver aborts where a task ends while it is taken back (seen with Ray 2.60)."""

    def abandon(self) -> None:
        """Leave the cluster: it ends what it still does for a process that has left."""
        import ray

        ray.shutdown()


def _require(kind: str, workers: str) -> None:
    from importlib.util import find_spec

    if find_spec(f"prefect_{kind}") is None:
        raise FanError(
            f"workers {workers!r}: prefect-{kind} is not installed; run `pip install --group {kind}` here and on the workers"
        )


def _asked(cluster: Cluster, question: Callable[[], Any]) -> Any:
    """What a cluster answers. Raises TransientError where it does not."""
    try:
        return question()
    except Exception as error:
        raise TransientError(f"{cluster}: {type(error).__name__}: {error}; see that it is up and reached") from error
