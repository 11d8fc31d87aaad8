"""A parent that outlives nobody: `python supervise.py -- COMMAND ...` runs COMMAND in a process group of its own.

Its standard input is a pipe that its own parent keeps open and never writes to. When that pipe closes (the parent asks for an end,
crashed, or was killed with SIGKILL), the group gets SIGTERM and, after a grace, SIGKILL. Works wherever pipes do, so on macOS too.
Only the standard library is imported: a supervisor must be up before anything else can go wrong.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE_SECONDS = 6.0
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def _wakeup_pipe() -> int:
    """A descriptor that yields a byte, its number, for every signal received: `select` then sees signals and the pipe alike."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (*STOPPING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # a handler must stand, or no byte is written
    return reading


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; whether anybody was there to get it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: only zombies are left in the group
        return False
    return True


def end_group(child: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left of it after the grace."""
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        child.poll()  # reaps: a zombie would count as a member
        if not _signal_group(child.pid, 0):
            return
        time.sleep(0.02)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _must_end(ready: Sequence[int], parent: int, signals: int) -> bool:
    if parent in ready and not os.read(parent, 4096):
        return True
    return signals in ready and any(number in STOPPING for number in os.read(signals, 64))


def supervise(command: Sequence[str], grace: float = GRACE_SECONDS) -> int:
    """Run a command to its end, or until the parent is gone; its exit code, 128 + n where signal n ended it."""
    signals = _wakeup_pipe()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    parent = sys.stdin.fileno()
    while child.poll() is None:
        ready, _, _ = select.select([parent, signals], [], [])
        if _must_end(ready, parent, signals):
            end_group(child, grace)
    _signal_group(child.pid, signal.SIGKILL)  # what the command left behind in its group
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody reads any more: nothing left to say
        sys.exit(supervise(sys.argv[sys.argv.index("--") + 1 :]))
