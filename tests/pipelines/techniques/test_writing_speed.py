from __future__ import annotations

import time

import pytest

from pipelines.techniques.writing_speed import Run, Writer, Written, speed, writing_runs


def writer(name: str, calls: list[str], before: float, each: float, most: int) -> Writer:
    """One that takes `before` seconds to begin and `each` a token, and never writes more than `most`."""

    def write(texts: list[str], new_tokens: int) -> list[Written]:
        tokens = min(new_tokens, most)
        calls.append(f"{name}{new_tokens}")
        time.sleep(before + each * tokens)
        return [Written("x", tokens)]

    return write


def test_the_clock_tells_the_first_token_and_those_after_it() -> None:
    runs = writing_runs([writer("a", [], 0.02, 0.005, 9)], ["p", "q"], 9, 3)
    found = speed(runs[0])
    assert 25 <= found.first_token_ms < 100
    assert 40 < found.tokens_per_s < 210


def test_sides_take_turns_in_alternating_order() -> None:
    calls: list[str] = []
    writing_runs([writer("a", calls, 0, 0, 5), writer("b", calls, 0, 0, 5)], ["p"], 5, 2)
    assert calls[4:] == ["a1", "a5", "b1", "b5", "b1", "b5", "a1", "a5"]


def test_a_writer_that_stops_at_once_has_the_speed_of_its_first_token() -> None:
    assert speed([Run(0.01, 0.01, 1)]).tokens_per_s == pytest.approx(100)


def test_a_slow_moment_does_not_move_the_median() -> None:
    runs = [Run(0.01, 0.11, 11), Run(0.01, 0.11, 11), Run(5.0, 50.0, 11)]
    assert speed(runs).tokens_per_s == pytest.approx(100)
    assert speed(runs).first_token_ms == pytest.approx(10)
