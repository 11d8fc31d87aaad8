"""Timing: whose turn it is, what the interval of a median covers, and what a machine is said to be."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
import pytest
from slm_registry.runtime import machine, timing


def recorded(names: str, calls: list[tuple[str, list[str]]]) -> list[Callable[[list[str]], object]]:
    return [lambda texts, name=name: calls.append((name, texts)) for name in names]  # type: ignore[misc]


@pytest.mark.parametrize(("rounds", "turn"), [(20, 1), (60, 3), (600, 25)])
def test_models_take_turns_of_25_texts_and_no_more_than_a_stretch(rounds: int, turn: int) -> None:
    calls: list[tuple[str, list[str]]] = []
    texts = [str(at) for at in range(7)]
    times = timing.latencies(recorded("ab", calls), texts, rounds)
    timed = calls[2 * timing.WARM_UP :]
    said = "".join(name for name, _ in timed)
    orders = [said[at : at + 2 * turn] for at in range(0, len(said), 2 * turn)]
    assert len(orders) == rounds // turn and set(orders) == {"a" * turn + "b" * turn, "b" * turn + "a" * turn}
    assert turn <= rounds // timing.STRETCHES
    for name in "ab":
        assert [given for who, given in timed if who == name] == [[texts[at % 7]] for at in range(rounds)]
    assert [row.shape for row in times] == [(rounds,), (rounds,)]
    assert all((row > 0).all() for row in times)


def test_batches_are_full_and_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    now = [0.0]

    def model(name: str, takes: float) -> Callable[[list[str]], object]:
        def answer(texts: list[str]) -> None:
            calls.append((name, texts))
            now[0] += 9.0 if len(calls) > 22 else takes  # the last round is a slow moment, which is no matter

        return answer

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    rates = timing.throughputs([model("a", 0.1), model("b", 0.2)], [str(at) for at in range(40)], 11 * 32 - 5)
    names = [name for name, _ in calls]
    assert names[:2] == ["a", "b"] and len(names) == 2 + 2 * 11
    assert all({*names[at : at + 2]} == {"a", "b"} for at in range(2, len(names), 2))
    assert {len(given) for _, given in calls} == {32}
    assert {text for _, given in calls for text in given} == {str(at) for at in range(40)}
    assert rates == pytest.approx([320, 160])


def test_a_rate_is_of_ten_batches_at_least() -> None:
    calls: list[tuple[str, list[str]]] = []
    timing.throughputs(recorded("a", calls), ["one", "two"], 20)
    assert len(calls) == 1 + 10


def test_of_what_writes_a_piece_is_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0.0, 1.0] * 4))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    written = iter([10, 4, 0])
    inputs = [["a"], ["b", "c"], ["d"]]
    assert timing.seconds_of(lambda _: timing.Tokens(next(written)), inputs) == [0.1, 0.25, 1.0]
    assert timing.seconds_of(lambda texts: texts, [["b", "c"]]) == [0.5]


def test_the_interval_covers_the_median_where_slow_moments_last() -> None:
    """Against order statistics, which take each text for a draw of its own: they miss the median far more often."""
    rng = np.random.default_rng(3)
    covered = {"stretches": 0, "texts": 0}
    for _ in range(100):
        # Half of the time the machine is slow, for 20 texts on end.
        slow = np.repeat(rng.random(30) < 0.5, 20)
        times = np.where(slow, 1.2, 1.0) + rng.exponential(0.1, 600)
        low, high = timing.median_interval(times)
        covered["stretches"] += low <= TRUE_MEDIAN <= high
        ordered = np.sort(times)
        covered["texts"] += ordered[275] <= TRUE_MEDIAN <= ordered[324]
    assert covered["stretches"] >= 85
    assert covered["texts"] <= 60


#: Of the mixture above: half of 1 - e^(-10 (x - 1)) and half of 1 - e^(-10 (x - 1.2)) make 1/2.
TRUE_MEDIAN = 1.0 + 0.1 * float(np.log(1 + np.e**2))


def test_a_quiet_machine_has_a_narrow_interval_and_the_same_times_the_same_one() -> None:
    times = 1 + np.random.default_rng(5).normal(0, 0.01, 400)
    low, high = timing.median_interval(times)
    assert low <= np.median(times) <= high
    assert high - low < 0.005
    assert timing.median_interval(times.copy()) == (low, high)
    assert timing.median_interval(np.ones(timing.STRETCHES)) == (1, 1)


def test_true_median_is_that_of_the_mixture() -> None:
    rng = np.random.default_rng(1)
    drawn = np.where(rng.random(400_000) < 0.5, 1.2, 1.0) + rng.exponential(0.1, 400_000)
    assert np.median(drawn) == pytest.approx(TRUE_MEDIAN, abs=1e-3)


X86 = "processor\t: 0\nmodel name\t: Some Processor 7 \nflags\t\t: fpu avx avx2 avx512f avx512_vnni amx_tile amx_int8\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd aes asimddp i8mm sve\nCPU implementer\t: 0x41\n"


def test_processors_by_what_the_kernel_tells() -> None:
    assert machine.processor_of(X86) == "Some Processor 7"
    assert machine.instructions_of(X86) == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert machine.processor_of(ARM) == ""
    assert machine.instructions_of(ARM) == ("neon", "dotprod", "i8mm", "sve")
    assert machine.instructions_of("flags\t\t: fpu sse2\n") == ()
    assert machine.instructions_of("") is None


def test_this_machine_has_a_name() -> None:
    found = machine.this_machine()
    assert found.processor and found.architecture and found.cores >= 1
    assert found.onnxruntime.split(".")[0].isdigit()


class Heavy:
    """Answers with nothing, and holds a block of memory that its process alone should be charged with."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.held = np.ones(int(folder.name) << 17)

    def __call__(self, texts: list[str]) -> None:
        return None


def test_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    ballast = np.ones(100 << 17)  # 100 MiB here, none of the child's business
    small, large = (timing.peak_memory(Heavy, tmp_path / size, 1, ["text"]) for size in ("1", "60"))
    assert large - small == pytest.approx(59 << 20, rel=0.2)
    assert len(ballast) == 100 << 17


def killed(folder: Path, threads: int) -> Callable[[list[str]], object]:
    os._exit(9)


def test_a_process_that_is_killed_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    with pytest.raises(BrokenExecutor):
        timing.peak_memory(killed, tmp_path, 1, ["text"])
