"""Requests that come while the model is busy share its next batch."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from slm_registry.runtime import Prediction, TextClassifier

# The texts of a request, and where its answer goes.
_Waiting: TypeAlias = "tuple[Sequence[str], asyncio.Future[list[Prediction]]]"


class OverloadedError(Exception):
    """As many texts wait as may wait."""


class Batcher:
    """Runs one model for the requests of one event loop, on threads of its own.

    A request that finds a thread idle starts at once, so nothing ever waits for company. `workers` is how many batches
    run at once, `texts` how many texts may share one (1: every request runs alone), `waiting` how many texts may wait.
    """

    def __init__(
        self,
        model: TextClassifier,
        *,
        workers: int = 1,
        texts: int = 32,
        waiting: int = 4096,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._workers, self._texts, self._most = workers, texts, waiting
        self._observe = observe
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._busy = 0

    async def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """As the model's `predict`. Raises OverloadedError where too much waits already."""
        if self._queue and self._queued + len(texts) > self._most:
            raise OverloadedError
        answer: asyncio.Future[list[Prediction]] = asyncio.get_running_loop().create_future()
        self._queue.append((texts, answer))
        self._queued += len(texts)
        self._start()
        return await answer

    def close(self) -> None:
        """Close the model after the batches that run; nothing may wait any more. Does not block."""
        self._pool.submit(self._model.close)
        self._pool.shutdown(wait=False)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and self._busy < self._workers:
            batch = self._take()
            self._busy += 1
            texts = [text for request, _ in batch for text in request]
            self._observe(len(texts))
            running = loop.run_in_executor(self._pool, self._model.predict, texts)
            running.add_done_callback(functools.partial(self._finish, batch))

    def _take(self) -> list[_Waiting]:
        """The first request that waits, and those behind it that fit."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0][0]) <= self._texts):
            request = self._queue.popleft()
            batch.append(request)
            size += len(request[0])
        self._queued -= size
        return batch

    def _finish(self, batch: Sequence[_Waiting], done: asyncio.Future[list[Prediction]]) -> None:
        self._busy -= 1
        error = done.exception()
        start = 0
        for texts, answer in batch:
            # A request may have been given up meanwhile.
            if not answer.done():
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(done.result()[start : start + len(texts)])
            start += len(texts)
        self._start()
