"""Whether bf16 pays on this machine: some processors have instructions for it, most only emulate it."""

from __future__ import annotations

import time
from typing import Literal

Precision = Literal["fp32", "bf16"]

#: bf16 must win by this much: a training step is more than its matrix products, and fewer digits are a price.
WORTHWHILE = 1.3
_TOKENS, _WIDTH, _INNER = 512, 384, 1536
_ROUNDS, _STEPS = 3, 5


def faster_precision() -> Precision:
    """Time forward and backward passes of one FFN, as large as MiniLM's, in both precisions, and name the one to use."""
    seconds = {precision: min(_time(precision) for _ in range(_ROUNDS)) for precision in ("fp32", "bf16")}
    return "bf16" if seconds["fp32"] / seconds["bf16"] > WORTHWHILE else "fp32"


def _time(precision: str) -> float:
    import torch

    layer = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _INNER), torch.nn.GELU(), torch.nn.Linear(_INNER, _WIDTH))
    texts = torch.randn(_TOKENS, _WIDTH)
    started = 0.0
    for step in range(_STEPS + 1):
        if step == 1:  # the first pass sets up kernels
            started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = layer(texts).float().square().mean()
        loss.backward()
    return time.perf_counter() - started
