"""The joint front against a slow reference, and what its page says."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.front import FLOOR, standings, table
from pipelines.techniques.metrics import paired_difference

TEXTS = 40


def board(*systems: tuple[str, int, int, int]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows and right answers of (system, texts answered rightly of 40, bytes, ms)."""
    right = {name: np.random.default_rng(at).permutation(TEXTS) < good for at, (name, good, _, _) in enumerate(systems)}
    rows = [
        {"system": name, "accuracy": good / TEXTS, "bytes": size, "p50_ms": float(speed)}
        for name, good, size, speed in systems
    ]
    return rows, right


points = st.tuples(st.integers(0, TEXTS), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(points, max_size=5), st.lists(points, max_size=5))
def test_a_rival_is_held_where_one_of_ours_is_nowhere_worse(
    ours: list[tuple[int, int, int]], rivals: list[tuple[int, int, int]]
) -> None:
    teacher = ("teacher-torch", 36, 9, 9)
    named = [(f"factory-{at}", *point) for at, point in enumerate(ours)]
    others = [(f"rival-{at}", *point) for at, point in enumerate(rivals)]
    rows, right = board(teacher, *named, *others)
    found = {standing.rival: standing for standing in standings(rows, right, 200)}
    assert set(found) == {name for name, good, _, _ in others if good / TEXTS >= FLOOR * 36 / TEXTS}
    for name, good, size, speed in others:
        if name not in found:
            continue
        nowhere_worse = False
        for _, own_good, own_size, own_speed in named:
            if not (own_good < good or own_size > size or own_speed > speed):
                nowhere_worse = True
        assert found[name].held == nowhere_worse


def test_the_most_accurate_that_is_no_larger_and_no_slower_stands_beside_with_its_paired_interval() -> None:
    rows, right = board(
        ("teacher-torch", 40, 90, 9),
        ("factory", 37, 5, 5),
        ("factory-small", 36, 2, 2),
        ("factory-large", 40, 50, 5),
        ("rival", 39, 6, 6),
        ("tiny-rival", 38, 1, 1),
        ("bad", 35, 1, 1),
    )
    beside, alone = standings(rows, right, 1000)
    assert (beside.rival, beside.ours, beside.held) == ("rival", "factory", False)
    truth = np.zeros(TEXTS)
    wanted = paired_difference(truth, ~right["factory"], ~right["rival"], 1000, seed=0)
    assert beside.difference == wanted
    assert wanted.value < 0 <= wanted.high
    assert (alone.rival, alone.ours, alone.difference, alone.held) == ("tiny-rival", None, None, False)
    page = table([beside, alone])
    assert page[0].startswith("Ours is on or above the joint front at 0 of 2 rivals")
    assert page[-2].startswith("| `rival` | no, within the interval | `factory` | -5.00 (")
    assert page[-1] == "| `tiny-rival` | no | none is as small and as fast | |"


def test_equal_in_all_is_on_the_front() -> None:
    rows, right = board(("teacher-torch", 40, 90, 9), ("factory", 38, 5, 5), ("rival", 38, 5, 5))
    (standing,) = standings(rows, right, 100)
    assert standing.held
    assert "| `rival` | yes | `factory` | +0.00 (" in str(standing)
