"""What every ready model can do, whatever it is for."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from slm_registry.errors import UsageError
from slm_registry.runtime.arguments import at_least_one
from slm_registry.runtime.parts import read_json

if TYPE_CHECKING:
    from slm_registry.finding.records import Resolved

DEFAULT_BATCH = 32


class Parts(NamedTuple):
    """What a model holds that is worth freeing."""

    tokenizer: Any
    session: Any


class Model(abc.ABC):
    """A ready model of any kind: a runtime is a class below this one, with an entry in runtime/loading.py.

    One instance may be used by many threads at once. `close` frees its memory as soon as the calls that are under way
    have ended; any later call raises UsageError. As a context manager it closes itself.
    """

    task: ClassVar[str]
    max_length: int
    batch_size: int
    # Which version it is, where a registry loaded it.
    resolved: Resolved | None = None
    # What else ends with it: a registry takes its files as in use until then.
    on_close: Callable[[], None] | None = None
    _parts: Parts | None = None

    @abc.abstractmethod
    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, threads: int, max_length: int | None, batch_size: int
    ) -> None:
        """Load the files of a folder whose config.json was read already."""

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        threads: int = 1,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Self:
        """Load a bundle's folder as it is.

        `threads` is what one call computes with, `batch_size` how many texts go through the model at once. Raises
        UsageError where a file is missing or a number cannot be meant, CorruptError where a file cannot be read.
        """
        folder = Path(path)
        at_least_one("threads", threads)
        at_least_one("batch_size", batch_size)
        config = read_json(folder / "config.json")
        return cls(folder, config, threads=threads, max_length=max_length, batch_size=batch_size)

    @abc.abstractmethod
    def try_out(self) -> None:
        """Run the model once on some text: whoever exchanges models does it before."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._parts is None

    def close(self) -> None:
        """Give the memory back; once more does nothing."""
        self._parts = None
        # Of several threads that close it one takes this.
        release = self.__dict__.pop("on_close", None)
        if release is not None:
            release()

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Parts:
        """The parts, held by the caller until it is done with them."""
        parts = self._parts
        if parts is None:
            raise UsageError("the model is closed; load it again")
        return parts
