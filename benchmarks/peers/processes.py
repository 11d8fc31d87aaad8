"""Peers seen from the board: built and served by child processes, each system a predictor that is timed by its own clock."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import served
from benchmarks.peers.environments import clean_environment
from benchmarks.peers.errors import PeerError
from benchmarks.peers.served import Job

#: A build or an answer that takes longer than this will not come.
BUILD_SECONDS, ANSWER_SECONDS = 3600.0, 600.0
#: No telemetry, no hub: everything that a peer needs is in its job.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "PYTHONNOUSERSITE": "1",
}


@dataclass(frozen=True)
class Peer:
    """One tool: its name, the interpreter that has it, and the folder that its job, systems and logs go to."""

    name: str
    python: Path
    work: Path

    @property
    def script(self) -> Path:
        """What builds and loads its systems."""
        return peers.HERE / self.name / "peer.py"

    def command(self, action: str, job: Job) -> list[str]:
        """The command of a child process, its job written down. -P: no folder of ours on the child's path."""
        job_file = self.work / f"{action}.json"
        job_file.write_text(json.dumps(asdict(job)), encoding="utf-8")
        return [str(self.python), "-P", str(Path(served.__file__)), action, str(self.script), str(job_file)]


def build(peer: Peer, job: Job) -> dict[str, float]:
    """Build a peer's systems below `job.out`; seconds of each. Raises PeerError where it fails or leaves none."""
    log = peer.work / "build.log"
    with log.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                peer.command("build", job),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=_environment(peer, job.threads),
                timeout=BUILD_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"{peer.name}: its build took longer than {BUILD_SECONDS:g} s; its log: {log}") from error
    if code:
        raise PeerError(f"{peer.name}: its build ended with code {code}; its log: {log}")
    seconds = served.built(Path(job.out))
    missing = [name for name in seconds if not (Path(job.out) / name).is_dir()]
    if missing or not seconds:
        raise PeerError(f"{peer.name}: its build left no folder {', '.join(missing) or 'at all'}; its log: {log}")
    return seconds


@contextmanager
def serving(peer: Peer, job: Job) -> Iterator[dict[str, Served]]:
    """The systems of a built peer, loaded in one process that ends with the context. Raises PeerError as Served does."""
    log = peer.work / "serve.log"
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            peer.command("serve", job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=_environment(peer, job.threads),
            encoding="utf-8",
        ) as process,
    ):
        try:
            line = _Line(peer.name, process, log)
            names = line.ask(None).get("systems")
            if names != list(served.built(Path(job.out))):
                raise line.error(f"serves {names} instead of what it built")
            yield {name: Served(name, line, len(job.labels)) for name in names}
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # what it never read
                _pipe(process.stdin).close()


def _environment(peer: Peer, threads: int) -> dict[str, str]:
    """What a peer's process finds: as many threads as it may use, no hub, and a home of its own for what tools leave there."""
    number = str(threads)
    pools = {"OMP_NUM_THREADS": number, "RAYON_NUM_THREADS": number, "MKL_NUM_THREADS": number}
    own = {"HOME": str(peer.work / "home"), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    Path(own["HOME"]).mkdir(exist_ok=True)
    return clean_environment() | OFFLINE | pools | own


@dataclass(frozen=True)
class _Line:
    """The line to a peer's process: a question, an answer."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, question: Any) -> dict[str, Any]:
        """Send a question (None: only listen) and read the answer. Raises PeerError where none comes that is JSON."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        limit = threading.Timer(ANSWER_SECONDS, end)
        limit.start()
        try:
            said = self._exchange(question)
            code = None if said else self.process.wait()
        finally:
            limit.cancel()
        if late.is_set():
            raise self.error(f"no answer within {ANSWER_SECONDS:g} s")
        if code is not None:
            raise self.error(f"its process ended with code {code} instead of an answer")
        try:
            answer = json.loads(said)
        except ValueError as error:
            raise self.error(f"answered {said[:80]!r}, which is no JSON") from error
        if not isinstance(answer, dict):
            raise self.error(f"answered {said[:80]!r}, which is no JSON object")
        return answer

    def _exchange(self, question: Any) -> str:
        """The line that answers; empty where the process is gone."""
        try:
            if question is not None:
                _pipe(self.process.stdin).write(json.dumps(question) + "\n")
                _pipe(self.process.stdin).flush()
            return _pipe(self.process.stdout).readline()
        except BrokenPipeError:
            return ""

    def error(self, message: str) -> PeerError:
        """What went wrong with this peer, and where its log is."""
        return PeerError(f"{self.name}: {message}; its log: {self.log}")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@dataclass(frozen=True)
class Served:
    """A system of a peer: a Predictor, and Clocked, so it is timed where it runs."""

    name: str
    line: _Line
    classes: int

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Class probabilities [N, C]. Raises PeerError where the peer dies, or answers anything else."""
        return self._ask([texts])[0][0]

    def seconds(self, inputs: Sequence[list[str]]) -> list[float]:
        """What each input took inside the peer's process, tokenizing included. Raises as a call does."""
        return self._ask(inputs)[1]

    def _ask(self, inputs: Sequence[list[str]]) -> tuple[list[np.ndarray], list[float]]:
        answer = self.line.ask({"system": self.name, "inputs": list(inputs)})
        try:
            probabilities = [np.array(rows, dtype=np.float64) for rows in answer["probabilities"]]
            seconds = [float(number) for number in answer["seconds"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self.line.error(f"{self.name} answered no probabilities and seconds ({error})") from error
        wanted, found = [(len(texts), self.classes) for texts in inputs], [rows.shape for rows in probabilities]
        if found != wanted or len(seconds) != len(inputs):
            raise self.line.error(
                f"{self.name} answered {found} probabilities, {len(seconds)} times; asked for {wanted}"
            )
        if not all(np.isfinite(rows).all() for rows in probabilities) or not all(number > 0 for number in seconds):
            raise self.line.error(f"{self.name} answered something that is no probability or no time")
        return probabilities, seconds
