"""Stage `gate`: the measurements against the recipe's bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.bounds import holds
from pipelines.bundle import read_json, write_json
from pipelines.config import AnyBudget, Gate, MetricGate
from pipelines.errors import GateError
from pipelines.exploring.yardsticks import YARDSTICKS
from pipelines.stages import Output


@dataclass(frozen=True)
class Bound:
    """One bound of the gate, and what was measured."""

    name: str
    measured: float
    limit: float
    at_most: bool

    @property
    def held(self) -> bool:
        """Whether the measurement holds the bound; not-a-number does not."""
        return holds(self.measured, self.limit, at_most=self.at_most)

    def __str__(self) -> str:
        relation = "at most" if self.at_most else "at least"
        return f"{self.name} is {self.measured:.4g}, must be {relation} {self.limit:.4g} (off by {abs(self.measured - self.limit):.4g})"


def gate(evaluation: Path, verdict: Output, budget: AnyBudget | None, gate: Gate | MetricGate) -> None:
    """Write the verdict on the recipe's gate, and on its budget's bytes and margin (times hold on its target, where they were taken).

    Raises GateError naming every bound that is missed and by how much; the measurements stay.
    """
    metrics = read_json(evaluation / "metrics.json")
    bounds = [*bounds_of(metrics, gate), *_budget_bounds(metrics, budget)]
    missed = [bound for bound in bounds if not bound.held]
    if missed:
        raise GateError("the model misses its gate, nothing is published: " + "; ".join(str(bound) for bound in missed))
    write_json(verdict, {"passed": True, "bounds": [asdict(bound) for bound in bounds]})
    print(f"gate passed: all {len(bounds)} bounds hold")


def bounds_of(metrics: dict[str, Any], gate: Gate | MetricGate) -> list[Bound]:
    """Every bound beside its measurement. Raises GateError where a bound is on a number that was not measured."""
    return _metric_bounds(metrics, gate) if isinstance(gate, MetricGate) else _classifier_bounds(metrics, gate)


def _metric_bounds(metrics: dict[str, Any], gate: MetricGate) -> list[Bound]:
    numbers = dict(_numbers(metrics))
    bounds = []
    for bound in gate.bounds:
        if bound.metric not in numbers:
            near = difflib.get_close_matches(bound.metric, numbers, n=5, cutoff=0.5) or sorted(numbers)
            raise GateError(f"gate.bounds: metrics.json has no number {bound.metric}; it has {', '.join(near)}")
        for limit, at_most in ((bound.at_most, True), (bound.at_least, False)):
            if limit is not None:
                bounds.append(Bound(bound.metric, numbers[bound.metric], limit, at_most))
    return bounds


def _numbers(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number by its dotted path; what could not be measured, null, is not-a-number."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _numbers(inner, f"{prefix}{key}.")
        elif inner is None:
            yield prefix + key, math.nan
        elif isinstance(inner, int | float):
            yield prefix + key, inner


def _budget_bounds(metrics: dict[str, Any], budget: AnyBudget | None) -> list[Bound]:
    if budget is None:
        return []
    yardstick = next(one for one in YARDSTICKS.values() if isinstance(budget, one.budget))
    difference = f"{yardstick.key}_difference"
    end = (
        -metrics["comparison"][f"{difference}_low"]
        if yardstick.more_is_better
        else metrics["comparison"][f"{difference}_high"]
    )
    pairs = (
        ("max_bytes", metrics["model"]["bytes"], budget.max_bytes),
        (yardstick.bound, yardstick.factor * end, getattr(budget, yardstick.bound)),
    )
    return [
        Bound(f"budget.{name}", measured, limit, at_most=True) for name, measured, limit in pairs if limit is not None
    ]


def _classifier_bounds(metrics: dict[str, Any], gate: Gate) -> list[Bound]:
    """The accuracy loss is the pessimistic end of the paired interval, in points."""
    comparison, model = metrics["comparison"], metrics["model"]
    return [
        Bound("max_accuracy_loss", -100 * comparison["accuracy_difference_low"], gate.max_accuracy_loss, at_most=True),
        Bound("max_bytes", model["bytes"], gate.max_bytes, at_most=True),
        Bound("min_size_ratio", comparison["size_ratio"], gate.min_size_ratio, at_most=False),
        Bound("min_latency_ratio", comparison["latency_ratio"], gate.min_latency_ratio, at_most=False),
        Bound("max_calibration_error", model["ece"], gate.max_calibration_error, at_most=True),
    ]
