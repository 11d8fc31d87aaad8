"""Progress: a bar on a terminal, lines elsewhere, nothing for what is short."""

from __future__ import annotations

import io
from pathlib import Path

from slm_registry import Registry
from slm_registry.plumbing.progress import TextProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bar_on_a_terminal() -> None:
    stream, clock = Terminal(), Clock()
    with TextProgress(stream, clock).task("upload", 1000) as moved:
        moved(100)
        clock.now = 4.0
        moved(400)
        moved(250)
        clock.now = 5.0
    frames = stream.getvalue().split("\r")[1:]
    assert len(frames) == 2
    assert frames[0].startswith("upload [###############               ]  50% of 1.0 kB, 125 B/s")
    assert "75%" in frames[1]
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1


def test_lines_elsewhere() -> None:
    stream, clock = io.StringIO(), Clock()
    with TextProgress(stream, clock).task("download", 1000) as moved:
        for second in range(30):
            clock.now = float(second)
            moved(30)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "download: 9% of 1.0 kB, 45 B/s"
    assert "\r" not in stream.getvalue()


def test_nothing_for_what_is_short_or_moves_nothing() -> None:
    for stream in (Terminal(), io.StringIO()):
        with TextProgress(stream, Clock()).task("upload", 0):
            pass
        with TextProgress(stream, Clock()).task("upload", 10) as moved:
            moved(10)
        assert stream.getvalue() == ""


def test_publish_and_pull_tell_every_byte(bundle: Path, tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()

    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 60.0
            return self.now

    registry = Registry(tmp_path / "store", cache=tmp_path / "cache", progress=TextProgress(stream, Slow()))
    registry.publish(bundle, "m", lineage={})
    registry.pull("m")
    last = [line for line in stream.getvalue().splitlines() if "100%" in line]
    assert {line.split(":")[0] for line in last} == {"upload", "download"}
    assert clock.now == 0.0
