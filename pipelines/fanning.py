"""Work over many items: one after the other in this process, or spread by whom the environment names.

Not a value of the recipe: what comes out is the same, so that another way to spread it makes no stage stale.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from pipelines.errors import FanError
from pipelines.ranks import ranks

#: `MODULE:WORKERS`. The module's `fanned(workers, body, name, threads)` does what `fanned` below does, with those workers.
VARIABLE = "SLM_FACTORY_FAN"

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Fan(Protocol):
    """Does one piece of work with many items."""

    def map(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
        """What the work answers to each item, in the items' order, as they come; an item that is not asked for may never be done.

        Work and items travel pickled, so a work that holds more than it can carry says how it is opened again (`__reduce__`).
        Raises, in its turn, what the work raised; ResourceError or TransientError where those who do it are gone.
        """


class Serial:
    """One item after the other, here, and none before it is asked for."""

    def map(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
        """As Fan says."""
        return map(work, items)


def fanned(body: Callable[[Fan], Answer], name: str, threads: int) -> Answer:
    """What `body` makes of the fan that the environment names; `threads` is what one item takes of a machine.

    Where several processes train together, each does all of it: the items train too.

    Raises FanError where the environment names none that there is.
    """
    wanted = os.environ.get(VARIABLE) if ranks().count == 1 else None
    return body(Serial()) if not wanted else _provider(wanted)(wanted.partition(":")[2], body, name, threads)


def _provider(wanted: str) -> Callable[..., Any]:
    module = wanted.partition(":")[0]
    try:
        provider: Callable[..., Any] = importlib.import_module(module).fanned
    except (ImportError, AttributeError, ValueError) as error:
        raise FanError(
            f"{VARIABLE}={wanted}: {error}; name a module with a function `fanned`, as in flows.fanout:processes:2, or unset it"
        ) from error
    return provider
