"""One model at the service of many requests, each run alone.

Requests that come together do not share a batch: on the processors that these models are made for it costs throughput
(0.6 to 0.9 of one by one, at 4 to 64 clients), since texts of unlike length are padded to the longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slm_registry.runtime.decoding import Generation
from slm_registry.runtime.generating import TextStream


class OverloadedError(Exception):
    """As many texts wait as may wait."""


class Runner:
    """Runs one model for the requests of one event loop, `workers` at once; `waiting` bounds the texts in hand."""

    def __init__(self, model: Any, *, workers: int = 1, waiting: int = 4096) -> None:
        self._model, self._most, self._held = model, waiting, 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")

    async def predict(self, texts: Sequence[str]) -> list[Any]:
        """As a classifier's or a tagger's `predict`. Raises OverloadedError where too much is in hand already."""
        with self._in_hand(len(texts)):
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._model.predict, texts)

    async def pieces(self, texts: Sequence[str]) -> list[int]:
        """As a classifier's `pieces`, of texts that were predicted."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._model.pieces, texts)

    async def write(self, prompt: str, options: Mapping[str, Any]) -> AsyncGenerator[str | Generation]:
        """As a generator's `stream`: an empty text once the prompt is taken, pieces, and the whole at the end.

        Whoever closes it ends the writing at the next token. Raises OverloadedError as `predict` does.
        """
        loop, queue, stopped = asyncio.get_running_loop(), asyncio.Queue[str | None](), threading.Event()

        def work(stream: TextStream) -> None:
            try:
                for piece in stream.steps():
                    if stopped.is_set():
                        return
                    if piece:
                        loop.call_soon_threadsafe(queue.put_nowait, piece)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(queue.put_nowait, None)

        with self._in_hand(1):
            begin = functools.partial(self._model.stream, prompt, **options)
            stream = await loop.run_in_executor(self._pool, begin)
            yield ""
            try:
                job = loop.run_in_executor(self._pool, work, stream)
                while (piece := await queue.get()) is not None:
                    yield piece
                await job
                yield stream.result
            finally:
                stopped.set()

    @contextlib.contextmanager
    def _in_hand(self, texts: int) -> Iterator[None]:
        if self._held and self._held + texts > self._most:
            raise OverloadedError
        self._held += texts
        try:
            yield
        finally:
            self._held -= texts

    def close(self) -> None:
        """Close the model once what was asked is answered. Does not block."""
        self._pool.submit(self._model.close)
        self._pool.shutdown(wait=False)
