"""Sides of a benchmark in alternating order, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def alternate(
    sides: Mapping[str, Callable[[], float]], amount: int, threads: int, rounds: int
) -> dict[str, list[float]]:
    """What each side does of `amount` in a second, a number a round; a side answers its seconds. One round before is not counted."""
    import torch

    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1, rounds):
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            torch.set_num_threads(threads)
            seconds = sides[name]()
            if turn >= 0:
                found[name].append(amount / seconds)
    return found
