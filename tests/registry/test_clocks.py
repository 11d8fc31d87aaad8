"""Clocks a day off change nothing: order comes from the log's numbers, and times in it are for people."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slm_registry import AccessError, Registry

from tests.registry.machine import make_contents

DAY = 86_400.0
Shift = Callable[[float], None]


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Shift:
    """Set this process's clocks off by some seconds."""
    real, real_time = datetime.datetime, time.time
    off = [0.0]

    class Shifted(real):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + datetime.timedelta(seconds=off[0])

    monkeypatch.setattr(datetime, "datetime", Shifted)
    monkeypatch.setattr(time, "time", lambda: real_time() + off[0])
    return lambda seconds: off.__setitem__(0, seconds)


def seen(registry: Registry) -> list[Any]:
    """What a reader is told."""
    entries = [(entry.seq, entry.op, dict(entry.details)) for entry in registry.log("m")]
    versions = [(row.version, row.aliases) for row in registry.list("m")]
    return [entries, versions, registry.resolve("m@candidate"), registry.resolve("m")]


def test_writers_and_readers_whose_clocks_are_a_day_off(tmp_path: Path, shift: Shift) -> None:
    contents = make_contents(tmp_path / "contents")
    told = []
    for name, offs in (("right", (0, 0, 0, 0)), ("wrong", (DAY, -DAY, 0, -DAY))):
        registry = Registry(tmp_path / name, cache=tmp_path / "cache", actor="a")
        for number in range(3):
            shift(offs[number])
            registry.publish(contents[number], "m", lineage={}, alias="candidate")
        shift(offs[3])
        registry.alias("m", "candidate", "1.0.1", expected="1.0.2")
        for off in (0, DAY, -DAY):
            shift(off)
            told.append(seen(Registry(tmp_path / name, cache=tmp_path / f"cache{off}")))
            Registry(tmp_path / name, cache=tmp_path / f"cache{off}").pull("m@candidate")
    assert all(one == told[0] for one in told)
    times = [entry.at for entry in Registry(tmp_path / "wrong").log("m")]
    assert times != sorted(times), "the clocks were off indeed"


@pytest.mark.parametrize("off", [DAY, -DAY])
def test_a_bucket_that_refuses_such_a_clock_is_told_apart(
    ceph_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    import botocore.auth

    real = botocore.auth.get_current_datetime
    skewed = lambda **options: real(**options) + datetime.timedelta(seconds=off)  # noqa: E731
    monkeypatch.setattr(botocore.auth, "get_current_datetime", skewed)
    bundle = make_contents(tmp_path / "contents")[0]
    with pytest.raises(AccessError, match="this machine's clock is off"):
        Registry(ceph_url, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
