"""The joint front: whether ours is on or above it wherever a rival keeps enough of the teacher's accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.techniques.metrics import Interval, difference_of_right

#: Rows whose system begins so are ours; every other is a rival, but for the one that all are compared with.
OURS, TEACHER = "factory", "teacher-torch"
#: A rival below this share of the teacher's accuracy is no rival.
FLOOR = 0.9


@dataclass(frozen=True)
class Standing:
    """How a rival stands to ours: the most accurate of ours that is no larger and no slower, and its accuracy less the rival's.

    Both are None where none of ours is as small and as fast. The interval is of a paired bootstrap over the same texts, 95 %.
    """

    rival: str
    ours: str | None
    difference: Interval | None

    @property
    def held(self) -> bool:
        """Whether one of ours is at least as accurate, no larger and no slower."""
        return self.difference is not None and self.difference.value >= 0

    def __str__(self) -> str:
        if self.difference is None:
            return f"| `{self.rival}` | no | none is as small and as fast | |"
        points = [100 * number for number in (self.difference.value, self.difference.low, self.difference.high)]
        within = "" if self.held or self.difference.high < 0 else ", within the interval"
        return f"| `{self.rival}` | {'yes' if self.held else 'no' + within} | `{self.ours}` | {points[0]:+.2f} ({points[1]:+.2f} to {points[2]:+.2f}) |"


def is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row of the board is the factory's."""
    return str(row["system"]).startswith(OURS)


def standings(rows: Sequence[Mapping[str, Any]], right: Mapping[str, np.ndarray], samples: int) -> list[Standing]:
    """How each rival of one data set stands to ours; `right` says of each system which test texts [N] it answers rightly."""
    teacher = next(row for row in rows if row["system"] == TEACHER)
    ours = [row for row in rows if is_ours(row)]
    found = []
    for rival in rows:
        if is_ours(rival) or rival is teacher or rival["accuracy"] < FLOOR * teacher["accuracy"]:
            continue
        near = [row for row in ours if row["bytes"] <= rival["bytes"] and row["p50_ms"] <= rival["p50_ms"]]
        best = max(near, key=lambda row: row["accuracy"], default=None)
        if best is None:
            found.append(Standing(rival["system"], None, None))
            continue
        difference = difference_of_right(right[best["system"]], right[rival["system"]], samples, seed=0)
        found.append(Standing(rival["system"], best["system"], difference))
    return found


def table(standings: Sequence[Standing]) -> list[str]:
    """The standings as lines of Markdown, with the verdict first."""
    held = sum(standing.held for standing in standings)
    return [
        f"Ours is on or above the joint front at {held} of {len(standings)} rivals with at least {FLOOR:g} of the teacher's accuracy. "
        "Beside each stands the most accurate of ours that is no larger and no slower; the difference is its accuracy less the rival's, of the same texts.",
        "",
        "| rival | held | ours | points |",
        "|---|---|---|---|",
        *map(str, standings),
    ]
