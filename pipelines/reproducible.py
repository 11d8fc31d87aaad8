"""Same record, same bytes: fixed threads, fixed seeds, deterministic kernels."""

from __future__ import annotations

import random

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
