"""How fast texts are written: the first token, and those after it, of two writers side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

#: Generations before the clock starts.
WARM_UP = 2


@dataclass(frozen=True)
class Written:
    """What was written after a prompt, or in answer to a text, and how many tokens it took."""

    text: str
    tokens: int


class Writer(Protocol):
    """What writes: texts, and the longest answer in tokens, to what is written after each."""

    def __call__(self, texts: list[str], new_tokens: int) -> list[Written]:
        """Answer the texts."""


@dataclass(frozen=True)
class Speed:
    """Medians at batch 1, tokenizing included: milliseconds to the first token, and tokens a second after it."""

    first_token_ms: float
    tokens_per_s: float


@dataclass(frozen=True)
class Run:
    """One timed generation: seconds to one token, seconds to `tokens` tokens."""

    first: float
    whole: float
    tokens: int


def writing_runs(writers: Sequence[Writer], prompts: Sequence[str], new_tokens: int, rounds: int) -> list[list[Run]]:
    """Timed generations of single prompts, a list a writer; they take turns, in alternating order, so a slow moment hits all.

    A generation is made twice: one token long, which is the prompt's reading and a step, and to its end.
    """
    for write in writers:
        for at in range(WARM_UP):
            write([prompts[at % len(prompts)]], new_tokens)
    runs: list[list[Run]] = [[] for _ in writers]
    for turn in range(rounds):
        order = range(len(writers)) if turn % 2 == 0 else range(len(writers) - 1, -1, -1)
        for which in order:
            prompt = [prompts[turn % len(prompts)]]
            first, _ = _timed(writers[which], prompt, 1)
            whole, tokens = _timed(writers[which], prompt, new_tokens)
            runs[which].append(Run(first, whole, tokens))
    return runs


def _timed(write: Writer, prompt: list[str], new_tokens: int) -> tuple[float, int]:
    start = time.perf_counter()
    written = write(prompt, new_tokens)
    return time.perf_counter() - start, written[0].tokens


def speed(runs: Sequence[Run]) -> Speed:
    """Medians of runs. Where no run went beyond its first token, the speed is that of first tokens."""
    first = float(np.median([run.first for run in runs]))
    rates = [(run.tokens - 1) / (run.whole - run.first) for run in runs if run.tokens > 1 and run.whole > run.first]
    return Speed(1000 * first, float(np.median(rates)) if rates else 1 / first)
