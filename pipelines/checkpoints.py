"""Trainings kept on disk, beside what their stage writes: a stage that was killed goes on where it was, with the same bytes at its end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.bundle import sha256_of
from pipelines.environment import ROOT
from pipelines.errors import RecipeError
from pipelines.ranks import facts
from pipelines.techniques.course import Kept

#: Names the seconds between two moments that are kept; a minute where it names none, and 0 for every batch.
VARIABLE = "SLM_FACTORY_CHECKPOINT_SECONDS"
SECONDS = 60.0
#: Times as long as the writing of the last one is what a training gets done before the next.
AT_LEAST = 20
#: What decides the bytes of a training beside recipe, inputs and code.
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
SUFFIX = ".safetensors"


@dataclass
class Checkpoints:
    """A Keeper: one file a training, in a folder that bears the digest of all that the stage's trainings are made of.

    Recoveries may keep theirs from several processes at once, of this machine or of others that see the folder.
    """

    folder: Path
    key: str
    seconds: float
    _due_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._due_at = time.monotonic() + self.seconds

    def __reduce__(self) -> tuple[type[Checkpoints], tuple[Path, str, float]]:
        return type(self), (self.folder, self.key, self.seconds)  # another machine has another clock

    @property
    def _place(self) -> Path:
        return self.folder / self.key

    def _file(self, phase: str) -> Path:
        return self._place / f"{re.sub(r'[^a-z0-9]+', '-', phase.lower())}{SUFFIX}"

    def open(self) -> None:
        """Make the place. What was kept of other inputs is of no use any more."""
        if not self._place.exists():
            self.remove()
            self._place.mkdir(parents=True)
        for partial in self._place.glob("*.partial"):  # of a process that was killed while it wrote
            partial.unlink()

    def load(self, phase: str) -> Kept | None:
        """See Keeper. A file that is damaged is said to be, and counts as none."""
        from safetensors import SafetensorError, safe_open

        path = self._file(phase)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["facts"])
                names = list(file.keys())
                return Kept({name: file.get_tensor(name) for name in names}, facts)
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            _say(f"{path}: damaged ({error}); {phase} begins anew")
            return None

    def due(self) -> bool:
        """See Keeper."""
        return time.monotonic() >= self._due_at

    def keep(self, phase: str, kept: Kept) -> None:
        """See Keeper. Without space or memory for it the training goes on, and says so; after the stage's end nothing is kept."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if not self._place.is_dir():
            return
        begun, path = time.monotonic(), self._file(phase)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            save_file(dict(kept.tensors), partial, metadata={"facts": json.dumps(kept.facts)})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, SafetensorError, MemoryError) as error:
            partial.unlink(missing_ok=True)
            _say(f"{path}: {error}; {phase} goes on, but would begin anew after an interruption")
        ended = time.monotonic()
        self._due_at = ended + max(self.seconds, AT_LEAST * (ended - begun) if self.seconds else 0)

    def close(self) -> None:
        """Leave no empty place behind a stage that failed before anything was kept."""
        with suppress(OSError):
            self._place.rmdir()
            self.folder.rmdir()

    def remove(self) -> None:
        """Let go of everything: the stage has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Reading:
    """Reads what another process keeps, and keeps nothing."""

    checkpoints: Checkpoints

    def load(self, phase: str) -> Kept | None:
        """See Keeper."""
        return self.checkpoints.load(phase)

    def due(self) -> bool:
        """See Keeper."""
        return False

    def keep(self, phase: str, kept: Kept) -> None:
        """See Keeper."""


def checkpoints_of(stage: str, output: Path, inputs: Mapping[str, Path], sections: Mapping[str, Any]) -> Checkpoints:
    """The place of a stage's trainings beside its first output. Raises RecipeError where the variable names no seconds."""
    said = os.environ.get(VARIABLE, str(SECONDS))
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise RecipeError(f"{VARIABLE} is {said!r}; it names the seconds between two checkpoints, 0 for one a batch")
    folder = output.with_name(f"{output.name}.checkpoints")
    return Checkpoints(folder.absolute(), _key(stage, inputs, sections), seconds)


def _key(stage: str, inputs: Mapping[str, Path], sections: Mapping[str, Any]) -> str:
    """Digest of what decides the bytes of a stage's trainings."""
    import torch
    from slm_registry.runtime.machine import this_machine

    values = {name: None if value is None else value.model_dump(mode="json") for name, value in sections.items()}
    made_of = {
        "stage": stage,
        "ranks": facts(),
        "sections": values,
        "inputs": {name: _digest(path) for name, path in inputs.items()},
        "code": _digest(ROOT / "pipelines", "*.py"),
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": [this_machine().processor, torch.backends.cpu.get_cpu_capability()],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path, pattern: str = "*") -> str:
    """Of a file's content, or of every file of a folder with its place in it."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob(pattern) if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
