"""The peer's half of the conversation: runs in the peer's environment, so it imports the standard library alone.

`python -P served.py build PEER JOB` builds the peer's systems, a folder each, and writes `built.json` beside them.
`python -P served.py serve PEER JOB` loads these folders and answers JSON lines on standard input, a line each on standard
output: `{"system", "inputs"}` gets `{"probabilities", "seconds"}`, of every input its texts' rows and what it took in here.
What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

#: Texts in, class probabilities [N, C] out, as an array or a tensor.
Answer = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Job:
    """What a peer is given. `train` and `validation` hold `{"text", "label"}` lines, labels as places in `labels`; test texts it never sees.

    `teacher` is a fine-tuned Hugging Face checkpoint, `body` the sentence-transformers folder that it came from, `out` where systems go.
    """

    train: str
    validation: str
    labels: list[str]
    teacher: str
    body: str
    out: str
    threads: int
    seed: int
    max_length: int

    def rows(self, split: str) -> tuple[list[str], list[int]]:
        """Texts and labels of `train` or `validation`."""
        with Path(getattr(self, split)).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [row["text"] for row in rows], [row["label"] for row in rows]


def main(action: str, script: str, job_file: str) -> None:
    """Build or serve what a peer's script offers."""
    lines = _own_output()
    job = Job(**json.loads(Path(job_file).read_text(encoding="utf-8")))
    peer = _load(Path(script))
    if action == "build":
        seconds: dict[str, float] = peer.build(job)
        (Path(job.out) / "built.json").write_text(json.dumps(seconds), encoding="utf-8")
        return
    serve({name: peer.load(Path(job.out) / name, job) for name in built(Path(job.out))}, sys.stdin, lines)


def built(out: Path) -> dict[str, float]:
    """The systems that a build left, and the seconds that each took."""
    seconds: dict[str, float] = json.loads((out / "built.json").read_text(encoding="utf-8"))
    return seconds


def serve(models: dict[str, Answer], requests: TextIO, lines: TextIO) -> None:
    """Answer until standard input ends. The first line says that all is loaded."""
    print(json.dumps({"systems": list(models)}), file=lines, flush=True)
    for line in requests:
        request = json.loads(line)
        answer, probabilities, seconds = models[request["system"]], [], []
        for texts in request["inputs"]:
            start = time.perf_counter()
            rows = answer(texts)
            seconds.append(time.perf_counter() - start)
            probabilities.append(rows.tolist())
        print(json.dumps({"probabilities": probabilities, "seconds": seconds}), file=lines, flush=True)


def _own_output() -> TextIO:
    """Standard output for the protocol alone: from here on whatever prints, in Python or below it, prints to standard error."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


def _load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peer_{script.parent.name}", script)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{script} is no Python script")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
