"""The chosen point: cut from the elastic student, recovered alone, and held against the budget's margin; else the next one."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.bounds import holds
from pipelines.bundle import Bundle
from pipelines.config import AnyBudget
from pipelines.errors import BudgetError
from pipelines.exploring.choosing import candidates_for, held_by
from pipelines.exploring.points import Point
from pipelines.exploring.recoveries import Recovered, Recovering, Recovery
from pipelines.exploring.yardsticks import Yardstick, yardstick_of
from pipelines.fanning import Fan, fanned
from pipelines.techniques.course import EpochRecord
from pipelines.techniques.shapes import Slice


def build_chosen(
    recovering: Recovering, points: Sequence[Point], budget: AnyBudget
) -> tuple[Bundle, list[EpochRecord], Point]:
    """The cheapest point that holds the budget once recovered, the records of the recoveries, and the point as the front has it.

    A part is recovered once for all its quantizations. The margin is held on validation data: by what the recovered part loses in
    torch, and what the quantization took from it when the point was measured. The gate holds the exported file.

    Raises BudgetError where no point of the front can hold it, or none of those tried does.
    """
    yardstick, wanted = yardstick_of(recovering.task), recovering.wanted
    candidates = candidates_for(points, budget, wanted.hope, yardstick)
    parts = _parts_to_try(candidates, held_by(candidates, budget, yardstick), wanted.attempts)
    tried = [point for point in candidates if point.slice in parts]
    return fanned(lambda fan: _first_that_holds(fan, recovering, tried, budget), "recover", recovering.task.threads)


def _parts_to_try(candidates: Sequence[Point], certain: Sequence[Point], attempts: int) -> set[Slice]:
    """Parts of the cheapest points. What rests on hope may fail each time: the last is one that holds without, where there is one."""
    parts = list(dict.fromkeys(point.slice for point in candidates))[:attempts]
    sure = {point.slice for point in certain}
    if sure and not sure & set(parts):
        parts[-1] = certain[0].slice
    return set(parts)


def _first_that_holds(
    fan: Fan, recovering: Recovering, candidates: Sequence[Point], budget: AnyBudget
) -> tuple[Bundle, list[EpochRecord], Point]:
    """The other parts may have begun meanwhile; what came of them does not count."""
    parts = list(dict.fromkeys(point.slice for point in candidates))
    orders = [Recovery(f"recover {at}/{len(parts)}", part) for at, part in enumerate(parts, start=1)]
    coming, recovered = fan.map(recovering, orders), dict[Slice, Recovered]()
    records: list[EpochRecord] = []
    tried, yardstick = [], yardstick_of(recovering.task)
    limit = getattr(budget, yardstick.bound)
    for point in candidates:
        if point.slice not in recovered:  # candidates and orders name the parts in the same order
            recovered[point.slice] = next(coming)
            records += recovered[point.slice].records
        worst = _lost_at_worst(point, recovered[point.slice], yardstick)
        tried.append(
            f"{point.slice}, {point.quantization}: {yardstick.read(worst)} {yardstick.unit_of_loss} lost at worst"
        )
        if limit is None or holds(yardstick.factor * worst, limit, at_most=True):
            bundle = recovering.parts.plain(point.slice)
            bundle.model.load_state_dict(recovered[point.slice].weights)
            return bundle, records, point
    raise BudgetError(
        f"none of {len(parts)} parts holds {yardstick.bound} {limit} after recovery: {'; '.join(tried)}; "
        "raise prune.attempts or the margin, or let distill.student hold more"
    )


def _lost_at_worst(point: Point, recovered: Recovered, yardstick: Yardstick) -> float:
    """What a recovered part will have lost in a point's quantization, and no more than the point had lost before it."""
    rounding = max(0.0, yardstick.loss(point.quality, recovered.before))
    return min(point.loss_high, recovered.lost.high + rounding)
