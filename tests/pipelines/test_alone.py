"""Two writers of one output: the second is told of the first; a dead one is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.alone import alone
from pipelines.errors import TransientError

HOLD = """
import sys
from pathlib import Path
from pipelines.alone import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_the_first_is_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    output = tmp_path / "build" / "teacher"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with (
            pytest.raises(TransientError, match=rf"teacher: process {first.pid} is writing it; wait for it"),
            alone(output),
        ):
            raise AssertionError("two hold it")
        first.kill()
    with alone(output):
        assert output.with_name("teacher.lock").read_text() != ""
    assert list(output.parent.iterdir()) == []


def test_an_error_lets_go_of_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="ours"), alone(tmp_path / "out"):
            raise ValueError("ours")


def test_of_many_one_is_inside_at_a_time(tmp_path: Path) -> None:
    """Locked, removed and made anew by eight threads at once: a counter that only the holder changes misses nothing."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def work(_: int) -> int:
        done = 0
        for _ in range(200):
            try:
                with alone(tmp_path / "out"):
                    counter.write_text(str(int(counter.read_text()) + 1))
                    done += 1
            except TransientError:
                pass
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))
    assert int(counter.read_text()) == done > 0
