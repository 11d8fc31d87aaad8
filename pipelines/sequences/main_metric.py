"""What the models of a task are compared by, where they answer token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.techniques import span_metrics, text_metrics
from pipelines.techniques.resampling import OfSums


@dataclass(frozen=True)
class MainMetric:
    """What a task's models are compared by: its key, its name in words, its direction, and its value of summed counts.

    `writes` tells whether they write texts, or tag them.
    """

    key: str
    words: str
    more_is_better: bool
    value: OfSums
    writes: bool


def bits_of(sums: np.ndarray) -> float:
    """Bits a byte of (nats, bytes)."""
    return text_metrics.bits_per_byte(float(sums[0]), float(sums[1]))


MAIN: dict[str, MainMetric] = {
    "text-generation": MainMetric("bits_per_byte", "bits a byte", False, bits_of, writes=True),
    "text-to-text": MainMetric("chrf", "chrF", True, text_metrics.chrf, writes=True),
    "token-classification": MainMetric("span_f1", "span F1", True, span_metrics.span_f1, writes=False),
}
