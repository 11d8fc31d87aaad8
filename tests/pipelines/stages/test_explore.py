"""From an elastic student to the chosen model: the front is measured, the budget takes a point, the stages after it build that point."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from slm_registry.runtime.machine import this_machine

from pipelines.bundle import LINEAGE, Bundle, download_bytes, read_json, read_lineage, sha256_of, write_json
from pipelines.data.clean import load_clean
from pipelines.errors import BudgetError, ModelError
from pipelines.exploring import classifiers
from pipelines.exploring.classifiers import open_classifier
from pipelines.exploring.front import read_front
from pipelines.exploring.points import Point
from pipelines.exploring.workshop import open_workshop
from pipelines.families import family_of
from pipelines.signals import read_signals
from pipelines.stages.distill import distill
from pipelines.stages.explore import explore
from pipelines.stages.label import label
from pipelines.stages.prune import prune
from pipelines.stages.quantize import quantize
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from tests.recipes import BY_BUDGET, recipe
from tests.tiny import tiny_model, tiny_rows, write_csv
from tests.tiny_generators import tiny_causal


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the front."""
    folder = tmp_path_factory.mktemp("explored")
    source = write_csv(folder / "tiny.csv", tiny_rows())
    body = tiny_model(folder / "body")
    writer = tiny_causal(folder / "writer", "llama")
    written = {"source": str(writer), "sha256": sha256_of(writer / "model.safetensors"), "copies": 1}
    written |= {"prompt_tokens": 4, "max_new_tokens": 6, "temperature": 1.0}
    block = recipe(
        teach__source=str(body),
        teach__sha256=sha256_of(body / "model.safetensors"),
        label__levers={"cut_mix": 1, "dropped_words": 0, "typos": 0, "written": written},
        **BY_BUDGET,
    )
    validate(str(source), folder / "data", folder / "report", block.task, block.data)
    teach(folder / "data", folder / "teacher", folder / "t.csv", block.task, block.teach, Unkept())
    label(folder / "data", folder / "teacher", folder / "signals", block.task, block.label)
    distill(
        folder / "data",
        folder / "signals",
        folder / "teacher",
        folder / "student",
        folder / "d.csv",
        block.task,
        block.distill,
        Unkept(),
    )
    explore(folder / "data", folder / "teacher", folder / "student", folder / "front", block.task, block.explore)
    return folder


def chosen(folder: Path, out: Path, **bounds: Any) -> Path:
    block = recipe(**BY_BUDGET | {"budget": BY_BUDGET["budget"] | bounds})
    parts = [folder / name for name in ("data", "signals", "student", "front")]
    prune(*parts, out / "pruned", out / "p.csv", block.task, block.budget, block.prune, Unkept())
    quantize(folder / "data", out / "pruned", out / "exported", block.task, block.quantize)
    return out


def test_what_did_not_help_the_student_is_not_read_again(explored: Path) -> None:
    """One lever of the two is useless by fiat: whether a tiny student gains by one is a matter of luck."""
    made = read_signals(explored / "signals").levers
    assert set(made) == {"cut_mix", "written"} and min(map(len, made.values())) > 5
    found = {gain["lever"]: gain for gain in read_lineage(explored / "student")["stages"][-1]["levers"]}
    assert {name: gain["texts"] for name, gain in found.items()} == {name: len(texts) for name, texts in made.items()}
    student = explored.parent / "one-lever"
    shutil.copytree(explored / "student", student)
    lineage = read_lineage(student)
    lineage["stages"][-1]["levers"] = [gain | {"used": name == "written"} for name, gain in found.items()]
    write_json(student / LINEAGE, lineage)
    block = recipe(**BY_BUDGET)
    lesson = open_classifier(student, load_clean(explored / "data"), block.task).lesson(explored / "signals")
    assert set(lesson.levers) == set()
    assert set(made["written"]) <= set(lesson.texts) and not set(made["cut_mix"]) & set(lesson.texts)


def test_the_front_is_measured_and_drawn(explored: Path) -> None:
    front = read_front(explored / "front")
    points, right = front.points, front.teacher[:, 0]
    assert len(points) == 5 and len({(point.slice, point.quantization) for point in points}) == 5
    assert any(point.on_front for point in points)
    assert set(right) <= {0, 1} and len(right) > 10
    for point in points:
        assert 0 < point.p50_low <= point.p50_ms <= point.p50_high
        assert point.loss == pytest.approx(right.mean() - point.quality)
        assert abs(point.estimated_bytes - point.bytes) < 0.1 * point.bytes
    assert (explored / "front" / "front.png").read_bytes().startswith(b"\x89PNG")
    page = (explored / "front" / "front.html").read_text(encoding="utf-8")
    assert "error of estimated milliseconds" in page
    assert f"on the machine of the build, threads: 1; {this_machine()}" in page
    machine = read_json(explored / "front" / "target.json")["machine"]
    assert machine == json.loads(json.dumps(asdict(this_machine())))


def test_what_a_quantization_costs_is_part_of_the_estimate(explored: Path) -> None:
    points = read_front(explored / "front").points
    exact = [point for point in points if point.quantization == "float32"]
    assert exact
    for point in exact:
        assert point.estimated_loss == pytest.approx(point.loss, abs=1e-6)


def test_all_is_timed_on_the_same_texts_in_no_order(explored: Path) -> None:
    block = recipe(**BY_BUDGET)
    workshop = open_workshop(explored / "student", explored / "data", block.task, block.explore)
    rows = workshop.timed
    assert len(rows) == len(set(rows)) == min(block.explore.latency_rounds, len(workshop.parts.data.validation.texts))
    assert rows != sorted(rows)
    assert rows == open_workshop(explored / "student", explored / "data", block.task, block.explore).timed


def test_the_cheapest_point_that_holds_the_budget_is_built(explored: Path, tmp_path: Path) -> None:
    points = read_front(explored / "front").points
    cheapest = min(points, key=lambda point: point.bytes)
    made = chosen(explored, tmp_path)
    record = next(entry for entry in read_lineage(made / "pruned")["stages"] if entry["stage"] == "prune")["chosen"]
    assert (record["layers"], record["quantization"], record["bytes"]) == (
        cheapest.layers,
        cheapest.quantization,
        cheapest.bytes,
    )
    assert download_bytes(made / "exported") == pytest.approx(cheapest.bytes, rel=0.02)


def test_a_budget_that_nobody_meets_ends_before_any_recovery(explored: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"no point holds max_bytes 1,000 bytes.*Nearest: "):
        chosen(explored, tmp_path, max_bytes=1000)
    assert not (tmp_path / "pruned").exists()


def forgets(_family: Any, bundle: Bundle, *_: Any, **__: Any) -> list[Any]:
    """A recovery that takes what a part knows."""
    bundle.model.classifier.weight.data.zero_()
    return []


def test_a_margin_that_no_recovery_reaches_is_told_with_what_was_tried(
    explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a point more than the best has, which recovery is hoped to win."""
    monkeypatch.setattr(classifiers, "learn", forgets)
    limit = round(100 * min(point.loss_high for point in read_front(explored / "front").points) - 0.5, 6)
    with pytest.raises(
        BudgetError,
        match=rf"none of \d parts holds max_accuracy_loss {limit} after recovery: (.* points lost at worst;? ?)+; raise",
    ):
        chosen(explored, tmp_path, max_accuracy_loss=limit)


def test_a_part_that_recovery_makes_worse_stays_as_it_was_cut_out(
    explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifiers, "learn", forgets)
    made = chosen(explored, tmp_path)
    assert "no better: the part stays as it was" in capsys.readouterr().out
    block = recipe(**BY_BUDGET)
    record = next(entry for entry in read_lineage(made / "pruned")["stages"] if entry["stage"] == "prune")["chosen"]
    parts = open_classifier(explored / "student", load_clean(explored / "data"), block.task)
    part = parts.plain(Point(**record).slice).model.state_dict()
    kept = family_of(block.task).load(made / "pruned").model.state_dict()
    assert part.keys() == kept.keys() and all(torch.equal(part[name], kept[name]) for name in part)


def test_a_student_that_is_not_elastic_is_refused(explored: Path, tmp_path: Path) -> None:
    plain, by_budget = recipe(), recipe(**BY_BUDGET)
    distill(
        explored / "data",
        explored / "signals",
        explored / "teacher",
        tmp_path / "plain",
        tmp_path / "d.csv",
        plain.task,
        plain.distill,
        Unkept(),
    )
    with pytest.raises(ModelError, match=r"the student is not elastic; set distill\.student\.kind"):
        explore(
            explored / "data",
            explored / "teacher",
            tmp_path / "plain",
            tmp_path / "f",
            by_budget.task,
            by_budget.explore,
        )


def test_without_a_search_the_front_is_empty(explored: Path, tmp_path: Path) -> None:
    plain = recipe()
    explore(
        explored / "data", explored / "teacher", explored / "student", tmp_path / "front", plain.task, plain.explore
    )
    assert read_front(tmp_path / "front").points == []
