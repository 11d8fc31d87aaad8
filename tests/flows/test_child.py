"""No process outlives the one that wanted it: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows import child, supervise
from tests.flows.toy import environment, wait_for

#: Sleeps, and lets a second process of its own sleep too.
NAP = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(p.pid, flush=True); time.sleep(60)"
#: As NAP, but both ignore SIGTERM.
DEAF = textwrap.dedent("""\
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    print(p.pid, flush=True)
    time.sleep(60)
""")


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def collect(code: str, folder: Path, stop: threading.Event | None = None) -> tuple[int, list[str]]:
    lines: list[str] = []
    result = child.run(
        [sys.executable, "-u", "-c", code], cwd=folder, stop=stop or threading.Event(), each=lines.append
    )
    return result, lines


def test_exit_code_and_lines_of_both_streams_in_order(tmp_path: Path) -> None:
    code = "import sys, os; print(os.getcwd()); print('problem', file=sys.stderr); print('10%\\r20%\\r\\n\\nend'); sys.exit(3)"
    assert collect(code, tmp_path) == (3, [str(tmp_path), "problem", "10%", "20%", "end"])


def test_bytes_that_are_no_text_do_not_end_the_stream(tmp_path: Path) -> None:
    assert collect("import sys; sys.stdout.buffer.write(b'a\\xff\\n'); print('b')", tmp_path) == (0, ["a\ufffd", "b"])


def test_death_by_signal_is_an_exit_code(tmp_path: Path) -> None:
    assert collect("import os; os.kill(os.getpid(), 9)", tmp_path)[0] == 137


def test_no_such_command(tmp_path: Path) -> None:
    lines: list[str] = []
    assert child.run(["/no/such/command"], cwd=tmp_path, stop=threading.Event(), each=lines.append) == 127
    assert lines == ["/no/such/command: No such file or directory"]


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    seen: list[float] = []
    code = "import time; print('a', flush=True); time.sleep(1.5); print('b', flush=True)"
    child.run(
        [sys.executable, "-c", code], cwd=tmp_path, stop=threading.Event(), each=lambda _: seen.append(time.monotonic())
    )
    assert seen[1] - seen[0] > 1.0


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    started = time.monotonic()
    result, lines = collect(code, tmp_path)
    assert result == 0
    assert time.monotonic() - started < 5, "a pipe held open by a stray process is not waited for"
    # It is killed at once; how soon it is gone is for the machine to say.
    wait_for(lambda: not alive(int(lines[0])), 5)


def test_stop_ends_the_command_and_its_children(tmp_path: Path) -> None:
    stop, lines = threading.Event(), list[str]()

    def each(line: str) -> None:
        lines.append(line)
        stop.set()

    started = time.monotonic()
    with pytest.raises(child.Stopped):
        child.run([sys.executable, "-c", NAP], cwd=tmp_path, stop=stop, each=each)
    wait_for(lambda: not alive(int(lines[0])), 5)
    assert time.monotonic() - started < 5, "who obeys SIGTERM is not kept waiting"


def test_an_error_while_reading_ends_the_command(tmp_path: Path) -> None:
    lines: list[str] = []

    def each(line: str) -> None:
        lines.append(line)
        raise RuntimeError("reader failed")

    with pytest.raises(RuntimeError, match="reader failed"):
        child.run([sys.executable, "-c", NAP], cwd=tmp_path, stop=threading.Event(), each=each)
    wait_for(lambda: not alive(int(lines[0])), 5)


def test_who_ignores_sigterm_is_killed_after_the_grace() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, process_group=0)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    started = time.monotonic()
    supervise.end_group(process, grace=1.0)
    assert 0.9 < time.monotonic() - started < 5
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not alive(grandchild), 2)
    process.stdout.close()


PARENT = textwrap.dedent("""\
    import sys, threading
    from pathlib import Path
    from flows import child
    command = [sys.executable, "-c", sys.argv[1]]
    child.run(command, cwd=Path.cwd(), stop=threading.Event(), each=lambda line: print(line, flush=True))
""")


def parent_of(code: str, folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that runs a command under supervision, and the pid of that command's own child."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_sigkill_of_the_parent_ends_everything(tmp_path: Path) -> None:
    parent, grandchild = parent_of(NAP, tmp_path)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 3, "supervisor, command, its child"
    assert grandchild in {one.pid for one in family}
    parent.kill()
    parent.communicate()
    wait_for(lambda: not any(alive(one.pid) for one in family), 5)


def test_sigkill_of_the_supervisor_ends_everything(tmp_path: Path) -> None:
    parent, _ = parent_of(NAP, tmp_path)
    family = psutil.Process(parent.pid).children(recursive=True)
    supervisor = psutil.Process(parent.pid).children()[0]
    supervisor.kill()
    parent.communicate(timeout=10)
    wait_for(lambda: not any(alive(one.pid) for one in family), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_supervisor_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    parent, _ = parent_of(NAP, tmp_path)
    family = psutil.Process(parent.pid).children(recursive=True)
    os.kill(psutil.Process(parent.pid).children()[0].pid, number)
    parent.communicate(timeout=10)
    wait_for(lambda: not any(alive(one.pid) for one in family), 5)


def test_the_supervisor_needs_nothing_but_python() -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        supervise.__file__,
        "--",
        sys.executable,
        "-c",
        "import sys; print(sys.flags.isolated)",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.read() == "0\n", "the command itself is not isolated"
    process.communicate()
