"""The chosen point: cut from the elastic student, recovered alone, and held against the budget's margin; else the next one."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.bounds import holds
from pipelines.bundle import Bundle
from pipelines.config import AnyBudget
from pipelines.errors import BudgetError
from pipelines.exploring.choosing import candidates_for
from pipelines.exploring.points import Point
from pipelines.exploring.recoveries import Recovering, Recovery
from pipelines.exploring.yardsticks import yardstick_of
from pipelines.fanning import Fan, fanned
from pipelines.techniques.shapes import Slice
from pipelines.techniques.training import EpochRecord


def build_chosen(
    recovering: Recovering, points: Sequence[Point], budget: AnyBudget
) -> tuple[Bundle, list[EpochRecord], Point]:
    """The cheapest point that holds the budget once recovered, the records of the recoveries, and the point as the front has it.

    The margin is held on validation data in torch, before quantization; the gate holds the exported file. Of a part that
    holds it in several quantizations the cheapest is tried alone: recovery would end at the same weights for each.

    Raises BudgetError where no point of the front can hold it, or none of those tried does.
    """
    cheapest: dict[Slice, Point] = {}
    for point in candidates_for(points, budget, recovering.wanted.hope, yardstick_of(recovering.task)):
        cheapest.setdefault(point.slice, point)
    candidates = list(cheapest.values())[: recovering.wanted.attempts]
    return fanned(
        lambda fan: _first_that_holds(fan, recovering, candidates, budget), "recover", recovering.task.threads
    )


def _first_that_holds(
    fan: Fan, recovering: Recovering, candidates: Sequence[Point], budget: AnyBudget
) -> tuple[Bundle, list[EpochRecord], Point]:
    """The others may have begun meanwhile; what came of them does not count."""
    orders = [Recovery(f"recover {at}/{len(candidates)}", point) for at, point in enumerate(candidates, start=1)]
    records: list[EpochRecord] = []
    tried, yardstick = [], yardstick_of(recovering.task)
    limit = getattr(budget, yardstick.bound)
    for point, recovered in zip(candidates, fan.map(recovering, orders), strict=True):
        records += recovered.records
        worst = recovered.lost.high
        tried.append(
            f"{point.slice}, {point.quantization}: {yardstick.read(worst)} {yardstick.unit_of_loss} lost at worst"
        )
        if limit is None or holds(yardstick.factor * worst, limit, at_most=True):
            bundle = recovering.parts.plain(point.slice)
            bundle.model.load_state_dict(recovered.weights)
            return bundle, records, point
    raise BudgetError(
        f"none of {len(tried)} parts holds {yardstick.bound} {limit} after recovery: {'; '.join(tried)}; "
        "raise prune.attempts or the margin, or let distill.student hold more"
    )
