"""Same record, same bytes: fixed threads, fixed seeds, deterministic kernels."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pipelines.config import Task


def fix_randomness(task: Task) -> None:
    """Set threads, seeds and deterministic kernels for a stage's process."""
    torch.set_num_threads(task.threads)
    torch.use_deterministic_algorithms(True)
    random.seed(task.seed)
    np.random.seed(task.seed)
    torch.manual_seed(task.seed)


@contextmanager
def fixed(task: Task, threads: int) -> Iterator[None]:
    """As fix_randomness, for one item of many: torch in so many threads, numpy's products in one, wherever the item is done.

    The order in which numbers are added depends on the number of threads, and that is another in each process.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    fix_randomness(task)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
