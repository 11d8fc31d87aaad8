"""One trainer a GPU: stages that train wait for a place of a limit that is Prefect's, so it counts for every build of a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.graph import Node

#: The limit's name, and the variable of a worker's environment that names another one: each machine, or GPU, has its own.
LIMIT, VARIABLE = "trainers", "SLM_FACTORY_TRAINERS"
#: Seconds between two attempts; and after which the place of a build that was killed is free again.
_PAUSE, _LEASE = 2.0, 60.0
#: What Prefect's server answers where a limit is full.
_LOCKED = 423


def limit_here() -> str:
    """The limit that counts on this machine."""
    return os.environ.get(VARIABLE, LIMIT)


@contextmanager
def place_to_train(node: Node, stop: threading.Event) -> Iterator[None]:
    """Hold a place of the limit while a stage runs, where it is one that trains and there is such a limit; wait for one, until `stop` is set.

    Without an answer from Prefect the stage goes on: it can do without its server, and of two trainers of one output the second gives way.
    """
    place = _take(node, stop) if node.trains else None
    try:
        yield
    finally:
        if place:
            _leave(node, place)


def _take(node: Node, stop: threading.Event) -> AbstractContextManager[None] | None:
    while not stop.is_set():
        place: AbstractContextManager[None] = concurrency(
            limit_here(), max_retries=0, lease_duration=_LEASE, raise_on_lease_renewal_failure=False
        )
        try:
            if not _limited():
                return None
            place.__enter__()
        except (ConcurrencySlotAcquisitionError, httpx.HTTPError) as error:
            if not _full(error):
                get_run_logger(**node.speaker).warning("no answer to how many may train at once (%s): going on", error)
                return None
            stop.wait(_PAUSE)
        else:
            return place
    return None


def _limited() -> bool:
    """Whether there is such a limit. Where there is none a place costs two seconds: a server that is busy writing refuses, and its client waits."""
    try:
        with get_client(sync_client=True) as client:
            client.read_global_concurrency_limit_by_name(limit_here())
    except ObjectNotFound:
        return False
    return True


def _full(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == _LOCKED


def _leave(node: Node, place: AbstractContextManager[None]) -> None:
    """Give it back. What the stage came to does not depend on whether the server hears of it."""
    try:
        place.__exit__(None, None, None)
    except httpx.HTTPError as error:
        get_run_logger(**node.speaker).warning(
            "the place to train could not be given back, and is free in %.0f s: %r", _LEASE, error
        )
