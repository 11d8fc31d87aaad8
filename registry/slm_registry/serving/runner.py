"""One model at the service of many requests, each run alone.

Requests that come together do not share a batch: on the processors that these models are made for it costs throughput
(0.6 to 0.9 of one by one, at 4 to 64 clients), since texts of unlike length are padded to the longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from slm_registry.runtime.text_classification import Prediction, TextClassifier


class OverloadedError(Exception):
    """As many texts wait as may wait."""


class Runner:
    """Runs one model for the requests of one event loop, `workers` at once; `waiting` bounds the texts in hand."""

    def __init__(self, model: TextClassifier, *, workers: int = 1, waiting: int = 4096) -> None:
        self._model, self._most, self._held = model, waiting, 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")

    async def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """As the model's `predict`. Raises OverloadedError where too much is in hand already."""
        if self._held and self._held + len(texts) > self._most:
            raise OverloadedError
        self._held += len(texts)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._model.predict, texts)
        finally:
            self._held -= len(texts)

    def close(self) -> None:
        """Close the model once what was asked is answered. Does not block."""
        self._pool.submit(self._model.close)
        self._pool.shutdown(wait=False)
