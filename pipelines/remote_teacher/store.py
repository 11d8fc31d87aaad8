"""The answers that were paid for: a JSONL file a teacher, appended to and never rewritten.

Line 1 says whose answers these are; each other line is an `answer`, or a `lost` request that may have been charged for. Each
line ends with the sha256 of the rest of it. A line counts once its line end is on the disk: what a killed process left
of one is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import DataError
from pipelines.locking import locked
from pipelines.remote_teacher.questions import Identity, compact_json, sha256_of_text

DIGEST = "sha256"


@dataclass(frozen=True)
class Answer:
    """One answer as it is kept: its question's key, what came, and what it cost at that day's price.

    `counted` says whether the tokens are the endpoint's `usage` or an estimate.
    """

    key: str
    text_sha256: str
    number: int
    text: str
    finish: str | None
    served: str | None
    input_tokens: int
    output_tokens: int
    counted: Literal["usage", "estimate"]
    cost: float


class AnswerStore:
    """The file of one teacher, for many threads of one process. Close it, or use it as a context manager.

    Raises DataError where the file is damaged, ResourceError where another process writes there.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.path = folder / f"{sha256_of_text(compact_json(identity))[:16]}.jsonl"
        self._lock, self._costs = threading.Lock(), [0.0]
        self._answers: dict[str, Answer] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = locked(folder, "answers")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._load(identity)
        except BaseException:
            os.close(self._folder)
            raise

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        os.close(self._folder)

    @property
    def spent(self) -> float:
        """What all lines of the file cost."""
        return math.fsum(self._costs)

    def get(self, key: str) -> Answer | None:
        """The answer to a question, if there is one."""
        return self._answers.get(key)

    def append(self, answer: Answer) -> None:
        """Keep an answer: it is on the disk when this returns."""
        self._write({"kind": "answer"} | asdict(answer))
        self._answers[answer.key] = answer
        self._costs.append(answer.cost)

    def lose(self, key: str, cost: float) -> None:
        """Keep in mind what a request may have cost whose answer did not arrive."""
        self._write({"kind": "lost", "key": key, "cost": cost})
        self._costs.append(cost)

    def _load(self, identity: Identity) -> None:
        whole = self._cut_torn_line()
        header = {"kind": "teacher", "format": 1} | identity
        if not whole:
            self._write(header)
            os.fsync(self._folder)
            return
        lines = _checked_lines(self.path, whole)
        if next(lines) != header:
            raise DataError(f"{self.path}: line 1 is of another teacher; move the file out of the way")
        for value in lines:
            kind = value.pop("kind")
            self._costs.append(value["cost"])
            if kind == "answer":
                self._answers[value["key"]] = Answer(**value)

    def _cut_torn_line(self) -> bytes:
        """The file's whole lines; what follows the last line end goes."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.ftruncate(self._file, len(whole))
        os.lseek(self._file, 0, os.SEEK_END)
        return whole

    def _write(self, value: dict[str, Any]) -> None:
        line = compact_json(value | {DIGEST: sha256_of_text(compact_json(value))}).encode("utf-8") + b"\n"
        with self._lock:
            start = os.lseek(self._file, 0, os.SEEK_END)
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, start)  # a full disk: the next line must not begin inside this one
                raise


def _checked_lines(path: Path, raw: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(raw.split(b"\n")[:-1], 1):
        try:
            value = json.loads(line)
            digest = value.pop(DIGEST)
            good = digest == sha256_of_text(compact_json(value))
        except (ValueError, TypeError, AttributeError, KeyError):
            good = False
        if not good:
            raise DataError(
                f"{path}:{number}: the line is damaged; delete it (its answer is asked for again), or restore the file"
            )
        yield value
