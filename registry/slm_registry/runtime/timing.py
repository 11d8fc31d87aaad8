"""How fast models answer, side by side in one process, and how much memory each takes in one of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What answers texts, tokenizing included: Tokens where it writes.
Answer = Callable[[list[str]], object]


class Tokens(int):
    """How many tokens were written in answer to some texts: times are then of a token, the reading of its text shared out."""


@runtime_checkable
class Clocked(Protocol):
    """What answers in another process and times itself there: the way to it and back is no part of its time."""

    def seconds(self, inputs: Sequence[list[str]]) -> list[float]:
        """Answer inputs one after the other; what each took."""


#: (folder, threads) -> what answers texts; a spawned process must be able to import it.
Loader = Callable[[Path, int], Answer]

WARM_UP = 20
#: Texts in a row that one model answers at most before the next has its turn: a service runs one model, and so has it in
#: its caches; turns text by text would time the refilling of the caches, which weighs most on the smallest model.
TURN = 25
#: Texts of a batch that throughput is of, and batches at least.
THROUGHPUT_BATCH, FEWEST_BATCHES = 32, 10
#: Stretches that the interval of a median is drawn from, and how often.
STRETCHES, DRAWS = 20, 1000


@dataclass(frozen=True)
class Times:
    """Milliseconds of a piece at batch 1 with the 95 % interval of their median, pieces a second at batch 32, peak resident bytes.

    A piece is a text, or of a model that writes a token.
    """

    p50_ms: float
    p50_low: float
    p50_high: float
    p95_ms: float
    per_s: float
    peak_memory_bytes: int


def latencies(models: Sequence[Answer], texts: Sequence[str], rounds: int) -> list[NDArray[np.float64]]:
    """Milliseconds of a piece of single texts, an array a model; they take turns, so a slow moment hits all of them.

    A turn is no longer than a stretch of `median_interval`: what a slow turn holds is one draw of it and not several.
    """
    turn = min(TURN, max(1, rounds // STRETCHES))
    seconds = _in_turns(models, [[text] for text in texts], rounds, turn, WARM_UP)
    return [row * 1000 for row in seconds]


def throughputs(models: Sequence[Answer], texts: Sequence[str], rounds: int) -> list[float]:
    """Pieces a second of each model by the median of its batches of 32: ten at least, `rounds` texts at least; they take turns batch by batch."""
    import numpy as np

    batches = [
        [texts[(first + at) % len(texts)] for at in range(THROUGHPUT_BATCH)]
        for first in range(0, len(texts), THROUGHPUT_BATCH)
    ]
    count = max(FEWEST_BATCHES, -(-rounds // THROUGHPUT_BATCH))
    return [1 / float(np.median(row)) for row in _in_turns(models, batches, count, 1, 1)]


def _in_turns(
    models: Sequence[Answer], inputs: Sequence[list[str]], rounds: int, turn: int, warm_up: int
) -> NDArray[np.float64]:
    """Seconds [models, rounds] of a piece of one input a round.

    Each time the models follow in another order, by a fixed seed: who comes after a large one finds the caches full of it.
    """
    import numpy as np

    orders = np.random.default_rng(0)

    for answer in models:
        for at in range(warm_up):
            answer(inputs[at % len(inputs)])
    times = np.empty((len(models), rounds))
    for first in range(0, rounds, turn):
        mine = [inputs[at % len(inputs)] for at in range(first, min(first + turn, rounds))]
        for which in orders.permutation(len(models)):
            times[which, first : first + turn] = seconds_of(models[which], mine)
    return times


def seconds_of(answer: Answer, inputs: Sequence[list[str]]) -> list[float]:
    """Answer inputs one after the other; what a piece of each took, by its own clock where the model has one."""
    if isinstance(answer, Clocked):
        return [taken / len(texts) for texts, taken in zip(inputs, answer.seconds(inputs), strict=True)]
    seconds = []
    for texts in inputs:
        start = time.perf_counter()
        found = answer(texts)
        taken = time.perf_counter() - start
        seconds.append(taken / (max(found, 1) if isinstance(found, Tokens) else len(texts)))
    return seconds


def median_interval(times: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the median of times [N] in the order in which they were taken, N >= STRETCHES.

    A bootstrap over stretches of neighbours with a fixed seed (Carlstein 1986: blocks that do not overlap): a slow moment
    lasts for many texts, and an interval that took each for a draw of its own would be too narrow by far.
    """
    import numpy as np

    stretches = np.array_split(times, STRETCHES)
    drawn = np.random.default_rng(0).integers(0, STRETCHES, (DRAWS, STRETCHES))
    medians = [np.median(np.concatenate([stretches[which] for which in row])) for row in drawn]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def peak_memory(load: Loader, folder: Path, threads: int, texts: list[str]) -> int:
    """Peak resident bytes of a fresh process that loads a model and answers some texts: what a user's process costs.

    Raises concurrent.futures.BrokenExecutor where that process is killed, by a machine out of memory for one.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_in_child, load, folder, threads, texts).result()


def _peak_in_child(load: Loader, folder: Path, threads: int, texts: list[str]) -> int:
    load(folder, threads)(texts)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory too: Linux carries it over exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(load: Loader, folders: Sequence[Path], texts: list[str], threads: int, rounds: int) -> list[Times]:
    """The times of the model in each folder, all loaded at once. Raises what `load` raises, and as `peak_memory`."""
    import numpy as np

    models: list[Any] = [load(folder, threads) for folder in folders]
    singles, rates = latencies(models, texts, rounds), throughputs(models, texts, rounds)
    found = []
    for folder, times, rate in zip(folders, singles, rates, strict=True):
        peak = peak_memory(load, folder, threads, texts[:THROUGHPUT_BATCH])
        p50, p95 = np.percentile(times, [50, 95])
        found.append(Times(float(p50), *median_interval(times), float(p95), rate, peak))
    return found
