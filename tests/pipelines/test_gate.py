from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Budget, Gate, MetricGate
from pipelines.errors import GateError
from pipelines.stages.gate import gate

BOUNDS = Gate(max_accuracy_loss=1.0, max_bytes=1000, min_size_ratio=10, min_latency_ratio=5, max_calibration_error=0.05)


def measurements(**changes: float) -> dict[str, Any]:
    values = {"low": -0.008, "bytes": 900, "size": 12.0, "latency": 6.0, "ece": 0.04} | changes
    return {
        "model": {"bytes": values["bytes"], "ece": values["ece"]},
        "comparison": {
            "accuracy_difference_low": values["low"],
            "size_ratio": values["size"],
            "latency_ratio": values["latency"],
        },
    }


def judge(tmp_path: Path, **changes: float) -> Path:
    (tmp_path / "metrics.json").write_text(json.dumps(measurements(**changes)))
    gate(tmp_path, tmp_path / "gate.json", None, BOUNDS)
    return tmp_path / "gate.json"


def test_a_model_within_its_bounds_passes(tmp_path: Path) -> None:
    verdict = json.loads(judge(tmp_path).read_text())
    assert verdict["passed"] is True
    assert len(verdict["bounds"]) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": -0.013}, r"max_accuracy_loss is 1\.3, must be at most 1 \(off by 0\.3\)"),
        ({"bytes": 1001}, r"max_bytes is 1001, must be at most 1000 \(off by 1\)"),
        ({"size": 9.5}, r"min_size_ratio is 9\.5, must be at least 10 \(off by 0\.5\)"),
        ({"latency": 4.0}, r"min_latency_ratio is 4, must be at least 5 \(off by 1\)"),
        ({"ece": 0.06}, r"max_calibration_error is 0\.06, must be at most 0\.05 \(off by 0\.01\)"),
        ({"ece": float("nan")}, r"max_calibration_error is nan"),
    ],
)
def test_each_bound_is_named_with_its_distance(tmp_path: Path, change: dict[str, float], message: str) -> None:
    with pytest.raises(GateError, match=message):
        judge(tmp_path, **change)
    assert not (tmp_path / "gate.json").exists()
    assert (tmp_path / "metrics.json").exists()


def test_every_missed_bound_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        judge(tmp_path, bytes=5000, ece=0.5)
    assert "max_bytes" in str(caught.value)
    assert "max_calibration_error" in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_bytes": 899}, r"budget\.max_bytes is 900, must be at most 899"),
        ({"max_accuracy_loss": 0.7}, r"budget\.max_accuracy_loss is 0\.8, must be at most 0\.7"),
    ],
)
def test_the_budget_holds_on_test_data_too(tmp_path: Path, bounds: dict[str, float], message: str) -> None:
    nothing = dict.fromkeys(("max_bytes", "max_p50_ms", "min_texts_per_s", "max_memory_bytes", "max_accuracy_loss"))
    wide = {"max_bytes": 900, "max_p50_ms": 1e-6, "max_accuracy_loss": 0.9}  # times hold where they were taken
    (tmp_path / "metrics.json").write_text(json.dumps(measurements()))
    gate(tmp_path, tmp_path / "gate.json", Budget.model_validate(nothing | wide | {"cheapest": "bytes"}), BOUNDS)
    assert len(json.loads((tmp_path / "gate.json").read_text())["bounds"]) == 7
    with pytest.raises(GateError, match=message):
        gate(tmp_path, tmp_path / "no.json", Budget.model_validate(nothing | bounds | {"cheapest": "bytes"}), BOUNDS)


def judge_metrics(tmp_path: Path, metrics: dict[str, Any], *bounds: tuple[str, float | None, float | None]) -> Any:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    wanted = [{"metric": metric, "at_most": most, "at_least": least} for metric, most, least in bounds]
    gate(tmp_path, tmp_path / "gate.json", None, MetricGate.model_validate({"bounds": wanted}))
    return json.loads((tmp_path / "gate.json").read_text())


NUMBERS = {"model": {"bits_per_byte": 1.5, "chrf": 40, "perplexity": None, "by_type": {"PER": {"f1": 0.5}}}}


def test_a_bound_on_any_number_by_its_path(tmp_path: Path) -> None:
    verdict = judge_metrics(
        tmp_path, NUMBERS, ("model.bits_per_byte", 2, 1), ("model.chrf", None, 40), ("model.by_type.PER.f1", 0.5, None)
    )
    assert [(one["name"], one["limit"], one["at_most"]) for one in verdict["bounds"]] == [
        ("model.bits_per_byte", 2, True),
        ("model.bits_per_byte", 1, False),
        ("model.chrf", 40, False),
        ("model.by_type.PER.f1", 0.5, True),
    ]


def test_every_missed_path_is_told_with_its_distance(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"model\.bits_per_byte is 1\.5, must be at most 1 .*model\.chrf is 40, .*41"):
        judge_metrics(tmp_path, NUMBERS, ("model.bits_per_byte", 1, None), ("model.chrf", None, 41))


@pytest.mark.parametrize("bound", [(1e9, None), (None, -1e9)])
def test_what_is_not_a_number_holds_no_bound(tmp_path: Path, bound: tuple[float | None, float | None]) -> None:
    with pytest.raises(GateError, match=r"model\.perplexity is nan"):
        judge_metrics(tmp_path, NUMBERS, ("model.perplexity", *bound))


def test_a_path_that_is_not_there_is_told_with_those_near_it(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"no number model\.bits_per_bite; it has model\.bits_per_byte"):
        judge_metrics(tmp_path, NUMBERS, ("model.bits_per_bite", 1, None))
    with pytest.raises(GateError, match=r"no number model\.by_type; it has model\.by_type\.PER\.f1"):
        judge_metrics(tmp_path, NUMBERS, ("model.by_type", 1, None))
