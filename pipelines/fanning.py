"""Work over many items: one after the other in this process, or spread by whom the environment names.

Not a value of the recipe: what comes out is the same, so that another way to spread it makes no stage stale.
"""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import FanError
from pipelines.ranks import ranks

#: `MODULE:WORKERS`. The module's `fanned(workers, body, name, threads)` does what `fanned` below does, with those workers.
VARIABLE = "SLM_FACTORY_FAN"

#: Batches that one of many workers is given at once.
PIECE = 16

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


#: What a piece of work answers where that is large: batch by batch, arrays by name.
Batches = list[dict[str, NDArray[Any]]]


def pieces_of(fan: Fan, batches: Sequence[Item]) -> list[Sequence[Item]]:
    """Batches as pieces of work: one at a time where they are done here, so that each is kept as soon as it is done."""
    size = 1 if isinstance(fan, Serial) else PIECE
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def map_large(fan: Fan, work: Callable[[Item], Batches], items: Sequence[Item], folder: Path) -> Iterator[Batches]:
    """As Fan.map, for answers that together are beyond memory: what others do waits in files below `folder`, which they must see too."""
    for left in folder.parent.glob(f"{folder.name}-*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    if isinstance(fan, Serial):
        yield from fan.map(work, items)
        return
    # A name of its own each time: a worker of a run that was killed may still be writing.
    place = folder.absolute().with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}")
    place.mkdir(parents=True)
    try:
        for path in fan.map(_Filed(work, place), list(enumerate(items))):
            yield _read(path)
            path.unlink()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _read(path: Path) -> Batches:
    with np.load(path, allow_pickle=False) as found:
        batches: Batches = [{} for _ in range(int(found["count"]))]
        for name in found.files:
            at, separator, key = name.partition("/")
            if separator:
                batches[int(at)][key] = found[name]
    return batches


@dataclass(frozen=True)
class _Filed:
    """A work whose answer goes into a file."""

    work: Callable[[Any], Batches]
    folder: Path

    def __call__(self, numbered: tuple[int, Any]) -> Path:
        number, item = numbered
        batches = self.work(item)
        named = {f"{at}/{key}": array for at, batch in enumerate(batches) for key, array in batch.items()}
        path = self.folder / f"{number}.npz"
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, count=np.array(len(batches)), **named)
        return path


def _provider(wanted: str) -> Callable[..., Any]:
    module = wanted.partition(":")[0]
    try:
        provider: Callable[..., Any] = importlib.import_module(module).fanned
    except (ImportError, AttributeError, ValueError) as error:
        raise FanError(
            f"{VARIABLE}={wanted}: {error}; name a module with a function `fanned`, as in flows.fanout:processes:2, or unset it"
        ) from error
    return provider
