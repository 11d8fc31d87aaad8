"""Child processes that cannot be orphaned: started under flows/supervise.py, in a session of their own, swept when they end."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from flows import supervise

#: Longer than the supervisor's own grace, so that it is the supervisor that ends the group.
END_SECONDS = supervise.GRACE_SECONDS + 2.0
_TICK = 0.2
#: Seconds between two looks at whether the worker that started this process still lives.
PARENT_TICK = 1.0


class Stopped(Exception):
    """The command was ended because the flow is ending."""


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[str] | None = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a command under a supervisor. Closing the returned process's stdin, or dying, ends the command and all it started."""
    # -I -S: the supervisor needs no site-packages and is up in a few milliseconds; the command itself is not affected.
    supervised = [sys.executable, "-I", "-S", supervise.__file__, "--", *command]
    return subprocess.Popen(
        supervised,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a started command if it still runs: SIGTERM, a grace, SIGKILL; then whatever is left of its session."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        _sweep(process.pid)


def _sweep(session: int) -> None:
    """Kill what still runs in a session whose leader has ended: a supervisor killed from outside leaves its command behind."""
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except OSError:  # ended meanwhile, or not ours to ask about
            continue


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:  # universal newlines: a progress bar's carriage returns end lines too
        lines.put(line.rstrip())
    lines.put(None)


def _lines(process: subprocess.Popen[str], stop: threading.Event, each: Callable[[str], None]) -> None:
    """Hand over every line until the output ends, or until the process has ended and is silent."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while not stop.is_set():
        try:
            line = lines.get(timeout=_TICK)
        except queue.Empty:
            if process.poll() is not None:  # a stray process may hold the pipe open for ever
                return
            continue
        if line is None:
            return
        if line:
            each(line)
    raise Stopped(f"stopped: {' '.join(map(str, process.args))}" if isinstance(process.args, list) else "stopped")


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    stop: threading.Event,
    each: Callable[[str], None],
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a command, hand over each line of its output as it comes, and return its exit code.

    Raises Stopped once `stop` is set. However this ends, no process of the command is left.
    """
    process = start(command, cwd=cwd, env=env)
    try:
        _lines(process, stop, each)
        return process.wait()
    finally:
        end(process)


@contextmanager
def ends_with_its_worker() -> Iterator[None]:
    """Under a worker, end this process when the worker is gone: a SIGKILL of the worker reaches nobody else."""
    finished = threading.Event()

    def watch(worker: int) -> None:
        while not finished.wait(PARENT_TICK):
            if os.getppid() != worker:
                os.kill(os.getpid(), signal.SIGTERM)  # Prefect's handler unwinds the flow from here
                return

    if "PREFECT__FLOW_RUN_ID" in os.environ:  # set by workers alone
        threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    finally:
        finished.set()
