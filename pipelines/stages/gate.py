"""Stage `gate`: the measurements against the recipe's bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.bundle import read_json, write_json
from pipelines.config import Gate
from pipelines.errors import GateError
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
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    def __str__(self) -> str:
        relation = "at most" if self.at_most else "at least"
        return f"{self.name} is {self.measured:.4g}, must be {relation} {self.limit:.4g} (off by {abs(self.measured - self.limit):.4g})"


def gate(evaluation: Path, verdict: Output, gate: Gate) -> None:
    """Write the verdict. Raises GateError naming every bound that is missed and by how much; the measurements stay."""
    bounds = bounds_of(read_json(evaluation / "metrics.json"), gate)
    missed = [bound for bound in bounds if not bound.held]
    if missed:
        raise GateError("the model misses its gate, nothing is published: " + "; ".join(str(bound) for bound in missed))
    write_json(verdict, {"passed": True, "bounds": [asdict(bound) for bound in bounds]})
    print(f"gate passed: all {len(bounds)} bounds hold")


def bounds_of(metrics: dict[str, Any], gate: Gate) -> list[Bound]:
    """Every bound beside its measurement. The accuracy loss is the pessimistic end of the paired interval, in points."""
    comparison, model = metrics["comparison"], metrics["model"]
    return [
        Bound("max_accuracy_loss", -100 * comparison["accuracy_difference_low"], gate.max_accuracy_loss, at_most=True),
        Bound("max_bytes", model["bytes"], gate.max_bytes, at_most=True),
        Bound("min_size_ratio", comparison["size_ratio"], gate.min_size_ratio, at_most=False),
        Bound("min_latency_ratio", comparison["latency_ratio"], gate.min_latency_ratio, at_most=False),
        Bound("max_calibration_error", model["ece"], gate.max_calibration_error, at_most=True),
    ]
