"""Work of one stage spread over Prefect's task runners: processes of this machine, or a Dask or Ray cluster of several.

The provider behind pipelines/fanning.py: a stage that is started with SLM_FACTORY_FAN=flows.fanout:WORKERS finds it by that name.
Prefect is imported where it is used: pipelines load this module in the stage's process, which sets what Prefect reads at import.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import socket
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.clusters import Cluster, cluster_of
from pipelines.errors import FactoryError, FanError, ResourceError, TransientError
from pipelines.fanning import VARIABLE, Fan, Serial
from pipelines.trusting import permission, permitting

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Seconds between two looks at whether anybody is still there to answer.
TICK = 10.0


def environment_of(workers: str | None) -> dict[str, str]:
    """What a stage's process must find in its environment, so that its work is spread; nothing where it is not to be."""
    if not workers:
        return {}
    from prefect.settings import PREFECT_API_URL

    cluster_of(workers)
    url = PREFECT_API_URL.value()
    return {VARIABLE: f"{__name__}:{workers}"} | ({"PREFECT_API_URL": url} if url else {})


def fanned(workers: str, body: Callable[[Fan], Answer], name: str, threads: int) -> Answer:
    """What `body` makes of a fan over these workers: one flow, and in it a task an item. See pipelines/fanning.py.

    Raises FanError where there are no such workers, or no Prefect server. Its address must stand in the environment or in a profile:
    Prefect's own threads do not see settings of this process alone, and would start a server each.
    """
    cluster = cluster_of(workers)
    if cluster.room(threads) == 1:
        return body(Serial())
    made: list[Answer] = []
    here = Here(body)

    def run() -> None:
        made.append(_with_the_fan(cluster, here.what, name))

    with _silent_prefect():
        from prefect import flow
        from prefect.settings import PREFECT_API_URL

        if not PREFECT_API_URL.value():
            raise FanError(
                f"workers {workers!r}: no Prefect server; set PREFECT_API_URL to one, or run `python -m flows`, which starts one"
            )
        flow(name="fan", flow_run_name=f"{name} · {workers}", task_runner=cluster.runner(threads))(run)()
    return made[0]


@contextlib.contextmanager
def _silent_prefect() -> Iterator[None]:
    """The stage says what there is to say; whatever this process starts later logs as it was told to."""
    variable = "PREFECT_LOGGING_LEVEL"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = "CRITICAL"
    try:
        yield
    finally:
        os.environ.pop(variable, None)


class Here:
    """What stays in this process. Prefect sends a flow's function along with every task, and all that it refers to: this goes empty."""

    def __init__(self, what: Any = None) -> None:
        self.what = what

    def __reduce__(self) -> tuple[type[Here], tuple[()]]:
        return Here, ()


def _with_the_fan(cluster: Cluster, body: Callable[[Fan], Answer], name: str) -> Answer:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    runner = context.task_runner
    try:
        cluster.check(runner)
        return body(Spread(cluster, runner, name))
    finally:
        cluster.abandon()


@dataclass(frozen=True)
class Spread:
    """Items as tasks of the flow that is running."""

    cluster: Cluster
    runner: Any
    name: str

    def map(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
        """As Fan says. All items are handed over at once; those that nobody has begun are taken back when no more are asked for."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        parcel = pickle.dumps((uuid.uuid4().bytes, permission(), pickle.dumps(work)))
        doing = task(do, cache_policy=NO_CACHE, name=self.name)
        futures = [
            doing.with_options(task_run_name=f"{self.name} {at}/{len(items)}").submit(parcel, pickle.dumps(item))
            for at, item in enumerate(items, start=1)
        ]
        try:
            for future in futures:
                yield pickle.loads(self._answer(future))
        finally:
            for future in futures:
                self.cluster.cancel(future.wrapped_future)

    def _answer(self, future: Any) -> bytes:
        """What came of one item; raises what the work raised."""
        while True:
            try:
                found = future.result(timeout=TICK, raise_on_failure=False)
                break
            except TimeoutError:
                self.cluster.check(self.runner)
            except BrokenProcessPool as error:
                raise ResourceError(
                    f"{self.name}: a worker of {self.cluster} was killed from outside, most often for want of memory; "
                    "ask for fewer --workers"
                ) from error
            except Exception as error:
                said = str(error).strip().splitlines()[0] if str(error).strip() else "no reason told"
                raise TransientError(f"{self.name}: {self.cluster}: {type(error).__name__}: {said}") from error
        if isinstance(found, BaseException):
            raise found
        answer: bytes = found
        return answer


def do(parcel: bytes, item: bytes) -> bytes:
    """One item, in the worker's process. Raises what the work raises, with the worker's traceback as a note where nobody foresaw it."""
    try:
        work, permitted = _opened(parcel)
        with permitting(permitted):
            return pickle.dumps(work(pickle.loads(item)))
    except FactoryError:
        raise
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise


@functools.lru_cache(maxsize=1)
def _opened(parcel: bytes) -> tuple[Callable[[Any], Any], Any]:
    """What a parcel holds, loaded once a process: its first bytes are of one map alone, so that the next one loads anew."""
    _, permitted, packed = pickle.loads(parcel)
    try:
        with permitting(permitted):
            return pickle.loads(packed), permitted
    except FactoryError as error:
        seen = "it must see the same folders under the same names as the machine that started the stage"
        error.args = (f"{error}; so says the worker on {socket.gethostname()}: {seen}", *error.args[1:])
        raise


def prepare_process() -> None:
    """Make a fresh process a worker, before torch is imported there: no spinning threads, no bar, and an end when the stage ends."""
    import multiprocessing

    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TERM="dumb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the stage's, which ends its workers
    parent = multiprocessing.parent_process()

    def watch() -> None:
        with contextlib.suppress(OSError):
            if parent is not None:
                parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
