"""Work on many things at once: threads that live for one call, so that a fork finds none of them half-alive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

LANES = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item], lanes: int = LANES) -> list[Result]:
    """The results in the order of the items. The first error ends it: what has not begun then never does."""
    todo = list(items)
    if len(todo) < 2:
        return [work(item) for item in todo]
    with started(work, todo, lanes) as futures:
        return [future.result() for future in futures]


@contextmanager
def started(
    work: Callable[[Item], Result], items: Sequence[Item], lanes: int = LANES
) -> Iterator[list[Future[Result]]]:
    """Futures in the order of the items; on the way out what has not begun is dropped, and what has is waited for."""
    from concurrent.futures import ThreadPoolExecutor

    pool: ThreadPoolExecutor = ThreadPoolExecutor(max(1, min(lanes, len(items))))
    try:
        yield [pool.submit(work, item) for item in items]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
