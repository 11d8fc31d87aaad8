"""What budgets get on the board: one elastic student a data set, its front on validation data, and the most accurate points within shares of the
teacher's cost."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chain import SHARED, begin_beside, recipe_for, run
from benchmarks.systems import THREADS, System
from pipelines.bundle import download_bytes, read_json
from pipelines.errors import BudgetError
from pipelines.exploring.front import TEACHER, read_front
from pipelines.predictors import exported_predictor

#: How many times smaller and faster than the teacher a point must be at least.
SHARES = (15, 25)


@dataclass(frozen=True)
class Explored:
    """How many points a front has, the seconds that it took from nothing and that a build of one fixed shape took, and the shares that no point holds."""

    points: int
    seconds: float
    fixed_seconds: float
    unmet: tuple[int, ...]

    def __str__(self) -> str:
        ratio = self.seconds / self.fixed_seconds
        unmet = "".join(f" No point is {share} times smaller and faster." for share in self.unmet)
        return (
            f"The front: {self.points} points of one elastic student measured on validation data in {self.seconds:.0f} s from nothing, {ratio:.2f} times the "
            f"{self.fixed_seconds:.0f} s of `factory`, one fixed shape. `factory-Nx` is the most accurate of them that is N times smaller and faster.{unmet}"
        )


def budget_systems(
    name: str, source: Path, work: Path, fixed: Mapping[str, float], teacher: System
) -> tuple[list[System], Explored]:
    """The front of a data set whose fixed shape stands in `work`, built in `fixed` seconds by stage, and the systems that budgets take from it.

    A share that no point holds has no system. Raises CalledProcessError where a stage fails for another reason.
    """
    recipe, folder = recipe_for(name, source, "-front"), work / "front"
    made = begin_beside(name, work, folder)
    seconds = run(name, recipe, folder, ("distill", "explore"))
    to_front = sum(fixed[stage] for stage in SHARED) + sum(seconds.values())
    milliseconds = read_json(made / "front" / TEACHER)["p50_ms"]
    systems, unmet = [], []
    for share in SHARES:
        bounds = {"max_bytes": int(teacher.bytes / share), "max_p50_ms": milliseconds / share}
        try:
            chosen = run(name, _within(recipe, bounds), folder, ("prune", "quantize"))
        except subprocess.CalledProcessError as error:
            if error.returncode != BudgetError.exit_code:
                raise
            unmet.append(share)
            continue
        exported = folder / f"{share}x"
        shutil.rmtree(exported, ignore_errors=True)
        (made / "exported").rename(exported)
        predictor = exported_predictor(exported, THREADS)
        systems.append(
            System(f"factory-{share}x", predictor, download_bytes(exported), to_front + sum(chosen.values()))
        )
    points = len(read_front(made / "front").points)
    return systems, Explored(points, to_front, sum(fixed.values()), tuple(unmet))


def _within(recipe: Mapping[str, Any], bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with a budget of these bounds alone: of what holds them, the most accurate."""
    found = copy.deepcopy(dict(recipe))
    found["budget"] = {**dict.fromkeys(recipe["budget"]), **bounds, "cheapest": "accuracy_loss"}
    return found
