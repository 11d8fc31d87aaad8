"""What a stage's output says about how it went: DVC masks the exit codes of the commands that it runs."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from flows.errors import Locked, StageError, StageFailed, stage_error, stage_error_kinds

Outcome = Literal["built", "up to date", "restored"]

_UNCHANGED = re.compile(r"didn't change, skipping$")
_RESTORED = re.compile(r"is cached - skipping run, checking out outputs$")
_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
_DVC_ERROR = re.compile(r"^ERROR: (?:failed to reproduce '[^']*': )?(?P<message>.*)$")
_EXIT = re.compile(r"exited with (?P<code>-?\d+)$")
#: What a system says where a disk is full.
FULL = "No space left on device"
_USED = re.compile(
    r"^used (?P<seconds>[0-9.]+) s, (?P<cpu>[0-9.]+) s of processor time, (?P<memory>[0-9.]+) MB of memory at most$"
)
#: DVC's advice to a person at a terminal; in a log of a stage it only hides the stage.
_ADVICE = (
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage",
    "Use `dvc push` to send your updates",
    "Data and pipelines are up to date.",
    "Having any troubles? Hit us up at",
)


@dataclass(frozen=True)
class Used:
    """What a stage took: seconds, processor seconds of all its processes, the most memory of one of them in MB (10^6 bytes)."""

    seconds: float
    cpu_seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"used {self.seconds:.1f} s, {self.cpu_seconds:.1f} s of processor time, {self.megabytes:.0f} MB of memory at most"


@dataclass
class Transcript:
    """Reads a stage's lines as they come; afterwards it knows the outcome or the error."""

    stage: str
    outcome: Outcome = "built"
    used: Used | None = None
    _locked: str = ""
    _kind: str = ""
    _message: list[str] = field(default_factory=list)
    _open: bool = False
    _dvc: str = ""
    _last: deque[str] = field(default_factory=lambda: deque(maxlen=3))

    def read(self, line: str) -> bool:
        """Take one line; whether it is worth showing."""
        if line.strip().startswith(_ADVICE):
            return False
        if _UNCHANGED.search(line):
            self.outcome = "up to date"
        elif _RESTORED.search(line):
            self.outcome = "restored"
        elif _LOCKED.search(line):
            self._locked = line
        elif found := _USED.match(line):
            self.used = Used(*(float(value) for value in found.groups()))
            return True  # it stands after an error and says nothing of it
        self._read_error(line)
        return True

    def _read_error(self, line: str) -> None:
        kind, separator, message = line.partition(": ")
        failed = _DVC_ERROR.match(line)
        if failed:
            self._dvc, self._open = failed["message"], False
        elif separator and kind in stage_error_kinds():
            self._kind, self._message, self._open = kind, [message], True
        elif self._open:  # messages may have several lines
            self._message.append(line)
        else:
            self._last.append(line)

    def error(self, code: int) -> StageError:
        """The exception for a stage that ended with a non-zero exit code."""
        error = self._error(code)
        error.used = None if isinstance(error, Locked) else self.used  # who waited for a lock ran nothing
        return error

    def _error(self, code: int) -> StageError:
        if self._locked and not self._kind:
            return Locked(self.stage, self._locked.removeprefix("ERROR: "))
        if self._kind:
            return stage_error(self.stage, self._kind, "\n".join(self._message))
        exit_code = _EXIT.search(self._dvc)
        if exit_code and int(exit_code["code"]) in (-9, 137):
            return StageFailed(
                self.stage, "ResourceError", "killed from outside (signal 9), most often for want of memory"
            )
        if self._dvc and not exit_code:  # not the command, but DVC itself, which stood in its way
            return StageFailed(self.stage, "ResourceError" if FULL in self._dvc else "StageFailed", self._dvc)
        said = self._last[-1].strip() if self._last else ""
        return StageFailed(self.stage, "StageFailed", said or self._dvc or f"exited with {code} and said nothing")
