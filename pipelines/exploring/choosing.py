"""Which point a budget takes: the cheapest that holds every bound with confidence, or which bounds stand in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydantic import TypeAdapter

from pipelines.bounds import holds
from pipelines.bundle import Lineage
from pipelines.config import Budget, Form
from pipelines.errors import BudgetError
from pipelines.exploring.points import Point

#: Points that are named where none holds the budget.
NEAREST = 3


@dataclass(frozen=True)
class Bound:
    """One bound of a budget: what it is on, its limit, and the pessimistic end of a point's measurement."""

    name: str
    limit: float
    at_most: bool

    def measured(self, point: Point) -> float:
        """The end of the point's interval that would break the bound first."""
        return _PESSIMISTIC[self.name](point)

    def held(self, point: Point) -> bool:
        """Whether the point holds the bound with confidence."""
        return holds(self.measured(point), self.limit, at_most=self.at_most)

    def excess(self, point: Point) -> float:
        """How far the point is beyond the bound, as a share of the limit; 0 where it holds."""
        value = self.measured(point)
        beyond = value - self.limit if self.at_most else self.limit - value
        return max(0.0, beyond) / self.limit


_PESSIMISTIC: dict[str, Callable[[Point], float]] = {
    "max_bytes": lambda point: float(point.bytes),
    "max_p50_ms": lambda point: point.p50_high,
    "min_texts_per_s": lambda point: point.texts_per_s,
    "max_memory_bytes": lambda point: float(point.peak_memory_bytes),
    "max_accuracy_loss": lambda point: -100 * point.accuracy_difference_low,
}
_WORDS = {
    "max_bytes": "{:,.0f} bytes",
    "max_p50_ms": "{:.3f} ms",
    "min_texts_per_s": "{:.0f} texts/s",
    "max_memory_bytes": "{:,.0f} bytes of memory",
    "max_accuracy_loss": "{:.2f} points lost",
}


def bounds_of(budget: Budget) -> list[Bound]:
    """The bounds that a budget sets."""
    limits = {name: getattr(budget, name) for name in _PESSIMISTIC}
    return [
        Bound(name, float(limit), not name.startswith("min")) for name, limit in limits.items() if limit is not None
    ]


def candidates_for(points: Sequence[Point], budget: Budget, hope: float) -> list[Point]:
    """Points to try, the cheapest first: every bound holds, the accuracy's once recovery has won `hope` points of it.

    Raises BudgetError where there is none: which bound no point holds or which bounds exclude each other, and the nearest points.
    """
    bounds = bounds_of(budget)
    hoped = [Bound(each.name, each.limit + hope, True) if each.name == "max_accuracy_loss" else each for each in bounds]
    holding = [point for point in points if all(bound.held(point) for bound in hoped)]
    if not holding:
        raise BudgetError(explain(points, bounds, hope))
    return sorted(holding, key=lambda point: (_price(point, budget.cheapest), -point.accuracy, point.bytes))


def _price(point: Point, cheapest: str) -> float:
    """What a point costs in what the budget wants least of."""
    return -point.accuracy if cheapest == "accuracy_loss" else float(getattr(point, cheapest))


def explain(points: Sequence[Point], bounds: Sequence[Bound], hope: float) -> str:
    """Why no point holds all bounds, and the nearest ones."""
    if not points:
        return "the front has no point; set explore.technique to search and run `dvc repro explore`"
    hoped = {bound.name: hope if bound.name == "max_accuracy_loss" else 0.0 for bound in bounds}
    eased = [Bound(bound.name, bound.limit + hoped[bound.name], bound.at_most) for bound in bounds]
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
    limit = _WORDS[bound.name].format(bound.limit)
    more = f" (even with the {eased.limit - bound.limit:g} that recovery may win)" if eased.limit != bound.limit else ""
    return f"{bound.name} {limit}{more}"


def _figures(point: Point, bounds: Sequence[Bound]) -> str:
    return ", ".join(_WORDS[bound.name].format(bound.measured(point)) for bound in bounds)


def chosen_form(lineage: Lineage) -> Form:
    """The quantization of the point that `prune` has chosen."""
    form: Form = TypeAdapter(Form).validate_python(lineage["stages"][-1]["quantization"])
    return form
