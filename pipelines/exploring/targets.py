"""Times of exported bundles on the machine that they are for: this one, or one that a command leads to.

Nothing but slm_registry is needed there, and nothing but that command's standard input and output: `slm-registry measure --stdin`.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from slm_registry.bundles.packed import pack
from slm_registry.runtime.machine import Machine, this_machine
from slm_registry.runtime.timing import Times

from pipelines.bundle import model_files, require_files
from pipelines.config import Target
from pipelines.errors import RecipeError, TargetError
from pipelines.progress import Progress

__all__ = ["Questions", "Reached", "Times", "measure_folders", "measure_until_steady", "reach", "steady"]

#: Bundles that are sent, loaded and timed together. Those of one batch take turns; a small board must hold them all.
BATCH = 8
#: Seconds in which a command that was told to end may put its files away.
GRACE_SECONDS = 10.0
_SHOWN = 300

Value = TypeVar("Value")


@dataclass(frozen=True)
class Questions:
    """What models are timed on: texts to answer, or to write on from with so many new tokens."""

    texts: list[str]
    new_tokens: int | None


@dataclass(frozen=True)
class Reached:
    """A target that has answered, and what machine it is."""

    target: Target
    machine: Machine


def reach(target: Target) -> Reached:
    """Ask a target what machine it is, before hours of work for it; this machine always answers.

    Raises TargetError where there is no answer, RecipeError where the machine is not of the kind that is asked for.
    """
    machine = this_machine() if target.command is None else _asked(target)
    known = machine.instructions
    missing = target.instructions if known is None else [name for name in target.instructions if name not in known]
    if missing:
        raise RecipeError(
            f"explore.target.instructions: target {_told(target)} is not known to have {', '.join(missing)}: it is {machine}; "
            "name another machine, or leave them out"
        )
    return Reached(target, machine)


def _asked(target: Target) -> Machine:
    try:
        with tempfile.TemporaryFile() as nothing:
            command = [*_runner(target), "measure", "--machine", "--json"]
            return _parsed(_answer(command, nothing, target.timeout_seconds), _machine)
    except _Gone as error:
        raise TargetError(f"target {_told(target)}: {error}; {error.remedy}") from error


def measure_folders(folders: Sequence[Path], questions: Questions, reached: Reached, rounds: int) -> list[Times]:
    """Times of the bundle in each folder, `rounds` texts each (at least slm_registry.runtime.timing.STRETCHES).

    Raises ModelError where a folder is no bundle; TargetError, with the times told until then, where the target does not answer,
    or another machine than the one that was reached.
    """
    for folder in folders:
        require_files(folder, "config.json", "tokenizer.json", "model.onnx")
    found: list[Times] = []
    with Progress("measure", len(folders)) as progress:
        for first in range(0, len(folders), BATCH):
            batch = folders[first : first + BATCH]
            try:
                found += _measured(batch, questions, reached, rounds)
            except _Gone as error:
                remedy = f"{len(found)} of {len(folders)} models were measured before; {error.remedy}"
                raise TargetError(f"target {_told(reached.target)}: {error}; {remedy}", found) from error
            progress.advance(len(batch))
    return found


def steady(times: Sequence[Times], share: float) -> list[bool]:
    """Which medians are known well enough: half the width of the interval is below this share of the median."""
    return [_width(one) < share for one in times]


def _width(times: Times) -> float:
    return (times.p50_high - times.p50_low) / 2 / times.p50_ms


def measure_until_steady(
    folders: Sequence[Path], questions: Questions, reached: Reached, rounds: int, share: float, attempts: int
) -> list[Times]:
    """As measure_folders; what is not steady is measured again with twice the rounds each time, `attempts` times in all.

    Of several attempts the one with the narrowest interval is kept. What stays unsteady is said; `steady` tells which. Raises as
    measure_folders in the first attempt; of a target that goes away in a repeat is said so, and the times taken before count.
    """
    found = measure_folders(folders, questions, reached, rounds)
    for attempt in range(1, attempts):
        left = [at for at, good in enumerate(steady(found, share)) if not good]
        if not left:
            break
        seconds = reached.target.timeout_seconds * 2**attempt
        patient = replace(reached, target=reached.target.model_copy(update={"timeout_seconds": seconds}))
        try:
            again = measure_folders([folders[at] for at in left], questions, patient, rounds * 2**attempt)
        except TargetError as error:
            Progress("measure", len(folders)).note(f"{error}; the times of the attempts before count")
            _take(found, left, error.measured)
            break
        _take(found, left, again)
    _say_unsteady(folders, found, share, attempts)
    return found


def _take(found: list[Times], places: Sequence[int], again: Sequence[Times]) -> None:
    """Put what is known better now in its place; the last ones may be missing."""
    for at, times in zip(places, again, strict=False):
        found[at] = min(found[at], times, key=_width)


def _say_unsteady(folders: Sequence[Path], found: Sequence[Times], share: float, attempts: int) -> None:
    left = [
        (folder, times) for folder, times, good in zip(folders, found, steady(found, share), strict=True) if not good
    ]
    if left:
        told = ", ".join(f"{folder.name} {times.p50_low:.3f} to {times.p50_high:.3f} ms" for folder, times in left)
        Progress("measure", len(folders)).note(
            f"{len(left)} of {len(folders)} medians are not within {share:.1%} after {attempts} attempts, "
            f"the machine is too busy to rank them: {told}"
        )


class _Gone(Exception):
    """One call of the target's command failed."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _measured(folders: Sequence[Path], questions: Questions, reached: Reached, rounds: int) -> list[Times]:
    target = reached.target
    names = [f"{at}-{re.sub(r'[^A-Za-z0-9._-]', '_', folder.name)[:80]}" for at, folder in enumerate(folders)]
    with tempfile.TemporaryFile() as packed:
        pack({name: model_files(folder) for name, folder in zip(names, folders, strict=True)}, questions.texts, packed)
        packed.seek(0)
        options = ["--stdin", "--threads", str(target.threads), "--rounds", str(rounds), "--json"]
        options += [] if questions.new_tokens is None else ["--new-tokens", str(questions.new_tokens)]
        answer = _answer([*_runner(target), "measure", *options], packed, target.timeout_seconds)
    machine, times = _parsed(answer, lambda value: (_machine(value), _times(value, names)))
    if machine != reached.machine:
        raise _Gone(
            f"another machine answered, {machine}, than at first, {reached.machine}: times of two cannot be ranked",
            "name a single one",
        )
    return times


def _runner(target: Target) -> list[str]:
    return [*(target.command or []), target.python or sys.executable, "-m", "slm_registry"]


def _told(target: Target) -> str:
    return "on this machine" if target.command is None else f"`{' '.join([*target.command, str(target.python)])}`"


def _answer(command: Sequence[str], packed: BinaryIO, seconds: float) -> bytes:
    """What the command wrote. Raises _Gone where it cannot be started, fails, or is not done in time."""
    try:
        process = subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise _Gone(f"{command[0]} cannot be started ({error.strerror})", "name a program that is there") from error
    with process:
        try:
            out, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            last = _last(_ended(process) or error.stderr or b"")
            raise _Gone(
                f"no answer within {seconds:g} s{last}", "see that it is up and reached, or raise timeout_seconds"
            ) from error
        except BaseException:
            _ended(process)  # it has temporary files to remove
            raise
    if process.returncode:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise _Gone(
            f"its command ended with {how}{_last(said)}",
            "try it by hand with `-m slm_registry measure --machine`; where that is unknown, install this project's slm_registry there",
        )
    return out


def _ended(process: subprocess.Popen[bytes]) -> bytes:
    """End a command that takes too long, gently first; what it said."""
    process.terminate()
    try:
        return process.communicate(timeout=GRACE_SECONDS)[1]
    except subprocess.TimeoutExpired as error:
        process.kill()
        return error.stderr or b""


def _last(said: bytes) -> str:
    """The last line on standard error, as the end of a sentence."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return f", and last said: {lines[-1][:_SHOWN]}" if lines else ", and said nothing"


def _parsed(answer: bytes, read: Callable[[Any], Value]) -> Value:
    """What `read` finds in the JSON that the runner printed. Raises _Gone for anything else."""
    try:
        return read(json.loads(answer))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = answer[:_SHOWN].decode("utf-8", "replace")
        raise _Gone(
            f"its command did not print what was asked but {shown!r}",
            "let its shell print nothing of its own, and install this project's slm_registry there",
        ) from error


def _times(value: Any, names: Sequence[str]) -> list[Times]:
    named = [row.pop("folder") for row in value["folders"]]
    found = [Times(**row) for row in value["folders"]]
    numbers = [number for times in found for number in astuple(times)]
    if named != list(names) or not all(0 < number < math.inf for number in numbers):
        raise ValueError("not the times of all that was sent")
    return found


def _machine(value: Any) -> Machine:
    told = value["machine"]
    instructions = told["instructions"]
    return Machine(**told | {"instructions": instructions if instructions is None else tuple(instructions)})
