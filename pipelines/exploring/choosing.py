"""Which point a budget takes: the cheapest that holds every bound with confidence, or which bounds stand in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from pipelines.bounds import holds
from pipelines.config import AnyBudget
from pipelines.errors import BudgetError
from pipelines.exploring.points import Point
from pipelines.exploring.yardsticks import Yardstick

#: Points that are named where none holds the budget.
NEAREST = 3


@dataclass(frozen=True)
class Bound:
    """One bound of a budget: what it is on, its limit, the pessimistic end of a point's measurement, and how both are told."""

    name: str
    limit: float
    at_most: bool
    #: The end of a point's interval that would break the bound first.
    measured: Callable[[Point], float]
    told: str

    def held(self, point: Point) -> bool:
        """Whether the point holds the bound with confidence."""
        return holds(self.measured(point), self.limit, at_most=self.at_most)

    def excess(self, point: Point) -> float:
        """How far the point is beyond the bound, as a share of the limit; 0 where it holds."""
        value = self.measured(point)
        beyond = value - self.limit if self.at_most else self.limit - value
        return max(0.0, beyond) / self.limit


def bounds_of(budget: AnyBudget, yardstick: Yardstick) -> list[Bound]:
    """The bounds that a budget sets."""
    kinds: dict[str, tuple[Callable[[Point], float], str]] = {
        "max_bytes": (lambda point: float(point.bytes), "{:,.0f} bytes"),
        "max_p50_ms": (lambda point: point.p50_high, "{:.3f} ms"),
        yardstick.rate_bound: (lambda point: point.per_s, f"{{:.0f}} {yardstick.rate}"),
        "max_memory_bytes": (lambda point: float(point.peak_memory_bytes), "{:,.0f} bytes of memory"),
        yardstick.bound: (
            lambda point: yardstick.factor * point.loss_high,
            f"{{:.{yardstick.digits}f}} {yardstick.unit_of_loss} lost",
        ),
    }
    limits = {name: getattr(budget, name) for name in kinds}
    return [
        Bound(name, float(limit), not name.startswith("min"), *kinds[name])
        for name, limit in limits.items()
        if limit is not None
    ]


def candidates_for(points: Sequence[Point], budget: AnyBudget, hope: float, yardstick: Yardstick) -> list[Point]:
    """Points to try, the cheapest first: every bound holds, the loss' once recovery has won `hope` of it.

    Raises BudgetError where there is none: which bound no point holds or which bounds exclude each other, and the nearest points.
    """
    bounds = bounds_of(budget, yardstick)
    eased = [replace(each, limit=each.limit + hope) if each.name == yardstick.bound else each for each in bounds]
    holding = [point for point in points if all(bound.held(point) for bound in eased)]
    if not holding:
        raise BudgetError(_why_none(points, bounds, eased))
    cheapest = budget.cheapest.removeprefix(f"{yardstick.key}_")  # what a loss is called in the budget
    return sorted(holding, key=lambda point: (float(getattr(point, cheapest)), point.loss, point.bytes))


def held_by(points: Sequence[Point], budget: AnyBudget, yardstick: Yardstick) -> list[Point]:
    """Those of some points that hold every bound as they were measured, with no hope of recovery."""
    bounds = bounds_of(budget, yardstick)
    return [point for point in points if all(bound.held(point) for bound in bounds)]


def _why_none(points: Sequence[Point], bounds: Sequence[Bound], eased: Sequence[Bound]) -> str:
    """Why no point holds all bounds, and the nearest ones."""
    if not points:
        return "the front has no point; set explore.technique to search and run `dvc repro explore`"
    reasons = [
        f"no point holds {_said(bound, at)}"
        for bound, at in zip(bounds, eased, strict=True)
        if not any(map(at.held, points))
    ]
    if not reasons:
        apart = [
            f"{one.name} and {other.name} exclude each other"
            for one, other in combinations(eased, 2)
            if not any(one.held(point) and other.held(point) for point in points)
        ]
        reasons = apart or ["each bound is held by some point, all of them by none"]
    ordered = sorted(points, key=lambda point: sum(bound.excess(point) for bound in bounds))
    nearest = "; ".join(
        f"{point.slice}, {point.quantization}: {_figures(point, bounds)}" for point in ordered[:NEAREST]
    )
    return f"the budget cannot be met by the {len(points)} points measured: {', '.join(reasons)}. Nearest: {nearest}"


def _said(bound: Bound, eased: Bound) -> str:
    limit = bound.told.format(bound.limit)
    more = f" (even with the {eased.limit - bound.limit:g} that recovery may win)" if eased.limit != bound.limit else ""
    return f"{bound.name} {limit}{more}"


def _figures(point: Point, bounds: Sequence[Bound]) -> str:
    return ", ".join(bound.told.format(bound.measured(point)) for bound in bounds)
