"""One trainer a GPU: stages that train wait for a place of a limit that is Prefect's, so it counts for every build of a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect import get_run_logger
from prefect.concurrency.sync import concurrency

from flows.graph import Node

#: The limit's name, and the variable of a worker's environment that names another one: each machine, or GPU, has its own.
LIMIT, VARIABLE = "trainers", "SLM_FACTORY_TRAINERS"
#: Seconds of one attempt, after which a build that is ending may end; and after which the place of one that was killed is free again.
_TRY, _LEASE = 2.0, 60.0


@contextmanager
def place_to_train(node: Node, stop: threading.Event) -> Iterator[None]:
    """Hold a place of the limit while a stage runs, where it is one that trains and there is such a limit; wait for one, until `stop` is set.

    Without an answer from Prefect the stage goes on: it can do without its server, and of two trainers of one output the second gives way.
    """
    with ExitStack() as stack:
        while node.trains and not stop.is_set():
            try:
                stack.enter_context(_place())
            except TimeoutError:
                continue
            except httpx.HTTPError as error:
                get_run_logger().warning("no answer to how many may train at once (%r): going on", error)
            break
        yield


@contextmanager
def _place() -> Iterator[None]:
    name = os.environ.get(VARIABLE, LIMIT)
    with concurrency(name, timeout_seconds=_TRY, lease_duration=_LEASE, raise_on_lease_renewal_failure=False):
        yield
