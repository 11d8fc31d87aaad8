"""One training by several processes: each learns from its share of every batch, and all make the same step.

SLM_FACTORY_RANKS=2 starts a second process of a stage that trains on this machine; `accelerate launch`, or torchrun, starts one on each of several
hosts, which see the same project under the same path. The first process writes what the stage writes; what the others would goes nowhere.
Gradients are summed over all (gloo), and each share adds what it is of its batch's loss, term by term: the step is that of one process, but for the
order in which numbers are added. So the bytes depend on how many there are, and the lineage says it. Their processors must be alike.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.errors import ModelError, RecipeError, TransientError

if TYPE_CHECKING:  # torch comes with it, and a flow needs none
    from pipelines.techniques.course import Score

#: How many processes of this machine train together; not set: one.
VARIABLE = "SLM_FACTORY_RANKS"
#: Seconds that the others get to end by themselves once the first is done.
GRACE = 5.0
#: Seconds that the first gets to end by itself once another has told an error: it may have the same one, and something to save.
PATIENCE = 60.0
_HERE = "127.0.0.1"


class Ranks(Protocol):
    """This process among those that train together: `index` of `count`, the first is 0."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def count(self) -> int:
        """How many they are."""

    def share(self, batch: np.ndarray) -> np.ndarray:
        """This process' part of a batch; may be empty."""

    def joined(self, model: Any, loss: float) -> float:
        """Sum the gradients of a model over all, in place; the sum of their losses."""

    def agree(self, what: str) -> None:
        """Wait for all. Raises ModelError where they do not say the same."""

    def lead(self, score: Score) -> Score:
        """The first process' score: another machine's last digits must not end another epoch there."""


class Single:
    """One process alone."""

    index, count = 0, 1

    def share(self, batch: np.ndarray) -> np.ndarray:
        """See Ranks."""
        return batch

    def joined(self, model: Any, loss: float) -> float:
        """See Ranks."""
        return loss

    def agree(self, what: str) -> None:
        """See Ranks."""

    def lead(self, score: Score) -> Score:
        """See Ranks."""
        return score


@dataclass(frozen=True)
class Several:
    """One of several, by accelerate's word."""

    index: int
    count: int

    def share(self, batch: np.ndarray) -> np.ndarray:
        """See Ranks. Batches are sorted by length, so every second text of two processes: both have as many tokens."""
        return batch[self.index :: self.count]

    def joined(self, model: Any, loss: float) -> float:
        """See Ranks. A weight that had a gradient nowhere keeps none: its optimizer would not leave it alone otherwise."""
        import torch
        from accelerate.utils import reduce

        weights = [weight for weight in model.parameters() if weight.requires_grad]
        known = torch.tensor([loss, *(float(weight.grad is not None) for weight in weights)], dtype=torch.float64)
        with _with_the_others():
            known = reduce(known, "sum")
        learnt = [weight for weight, heard in zip(weights, known[1:].tolist(), strict=True) if heard]
        for weight in learnt:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if learnt:
            flat = torch.cat([weight.grad.reshape(-1) for weight in learnt])
            with _with_the_others():
                flat = reduce(flat, "sum")
            for weight, part in zip(learnt, flat.split([weight.numel() for weight in learnt]), strict=True):
                weight.grad.copy_(part.view_as(weight))
        return float(known[0])

    def agree(self, what: str) -> None:
        """See Ranks."""
        from accelerate.utils import gather_object

        with _with_the_others():
            everybody = gather_object([what])
        for other, said in enumerate(everybody):
            if said != what:
                raise ModelError(
                    f"process {other} of {self.count} that train together began with other weights, texts or settings than process "
                    f"{self.index}, or stands elsewhere; give every host the same project, data, packages and checkpoints"
                )

    def lead(self, score: Score) -> Score:
        """See Ranks."""
        import torch
        from accelerate.utils import broadcast

        with _with_the_others():
            accuracy, loss = broadcast(torch.tensor([score.accuracy, score.loss], dtype=torch.float64)).tolist()
        return replace(score, accuracy=accuracy, loss=loss)


@contextmanager
def _with_the_others() -> Iterator[None]:
    """What torch says where one of them is gone, as an error that may pass."""
    try:
        yield
    except RuntimeError as error:
        raise TransientError(
            f"a process that trains along is gone ({str(error).splitlines()[0]}); its own error stands above, or on its host; run the same command again"
        ) from error


def ranks() -> Ranks:
    """This process' place, by the environment that a launcher set."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Single()
    from accelerate import PartialState

    state = PartialState(cpu=True)
    return Several(state.process_index, state.num_processes)


def facts() -> dict[str, int]:
    """What a lineage says of it: nothing of one process."""
    count = ranks().count
    return {"ranks": count} if count > 1 else {}


@contextmanager
def together(module: str, argv: Sequence[str]) -> Iterator[None]:
    """Make this process the first of as many as the environment asks for; the others run `main(argv)` of a module while the body runs.

    Nothing of it where a launcher has done so already, or nobody asks for it. Raises RecipeError where what is asked for is no number.
    """
    count = _asked()
    if count == 1 or "RANK" in os.environ:
        yield
        return
    before, ended = dict(os.environ), threading.Event()
    with socket.socket() as free:
        free.bind((_HERE, 0))
        port = str(free.getsockname()[1])
    many = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": _HERE, "MASTER_PORT": port}
    os.environ.update(many, RANK="0", LOCAL_RANK="0")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_other, args=(module, list(argv), rank), daemon=True) for rank in range(1, count)]
    for process in processes:
        process.start()
        threading.Thread(target=_end_with, args=(process, ended), daemon=True).start()
    try:
        yield
        ended.set()
        for process in processes:
            process.join(GRACE)
    except TransientError as error:
        ended.set()
        if code := _told_by_the_others(processes):
            raise SystemExit(code) from error
        raise
    finally:
        ended.set()
        for process in processes:
            process.kill()
        os.environ.clear()
        os.environ.update(before)


def _told_by_the_others(processes: Sequence[Any]) -> int | None:
    """The exit code of a process that ended with an error of its own, which it has told: that is what went wrong, and not that it is gone."""
    for process in processes:
        process.join(1.0)
    return next((process.exitcode for process in processes if process.exitcode and process.exitcode > 0), None)


def _end_with(process: Any, ended: threading.Event) -> None:
    """End this process when another is gone before its time: it may wait for that where no signal is heard."""
    process.join()
    code = process.exitcode
    if code and not ended.wait(GRACE if code < 0 else PATIENCE):
        if code < 0:
            said = f"a process that trains along was killed by signal {-code}; run the same command again"
            print(f"{TransientError.__name__}: {said}", file=sys.stderr, flush=True)
        os._exit(code if code > 0 else TransientError.exit_code)


def _asked() -> int:
    said = os.environ.get(VARIABLE, "1")
    if not said.isdecimal() or int(said) < 1:
        raise RecipeError(f"{VARIABLE} is {said!r}; it is how many processes of this machine train together, 1 or more")
    return int(said)


def _other(module: str, argv: Sequence[str], rank: int) -> None:
    """A further process: it ends with the first, whatever ends that."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    raise SystemExit(importlib.import_module(module).main(argv))
