"""From an elastic student that answers token by token to the chosen model: a causal one whose times are of tokens, and a tagger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.bundle import download_bytes, read_json, read_lineage
from pipelines.config import SequenceRecipe
from pipelines.data.clean import load_clean
from pipelines.errors import BudgetError, GateError
from pipelines.exploring.front import read_front
from pipelines.exploring.token_models import open_token_model
from pipelines.exploring.token_sides import TokenSides
from pipelines.sequences.sides import exported_side
from pipelines.stages.distill import distill
from pipelines.stages.evaluate import evaluate
from pipelines.stages.explore import explore
from pipelines.stages.gate import gate
from pipelines.stages.label import label
from pipelines.stages.prune import prune
from pipelines.stages.quantize import quantize
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Unkept
from tests.sequence_chain import Chain
from tests.sequence_recipes import by_budget, write_rows
from tests.tiny import tiny_model
from tests.tiny_generators import tiny_causal

TASKS = ("text-generation", "token-classification")


@dataclass(frozen=True)
class Explored:
    """A folder with everything up to the front, and the recipe that it is of."""

    folder: Path
    chain: Chain

    def recipe(self, **changes: Any) -> SequenceRecipe:
        return self.chain.recipe(**by_budget(self.chain.task) | changes)

    def built(self, out: Path, **bounds: Any) -> Path:
        """The chosen model and its evaluation."""
        wanted = by_budget(self.chain.task)["budget"] | bounds
        block, folder = self.recipe(budget=wanted), self.folder
        (out / "curves").mkdir()
        parts = [folder / name for name in ("data", "signals", "student", "front")]
        prune(*parts, out / "pruned", out / "curves" / "prune.csv", block.task, block.budget, block.prune, Unkept())
        quantize(folder / "data", out / "pruned", out / "exported", block.task, block.quantize)
        return out

    def evaluated(self, out: Path) -> Path:
        block, folder = self.recipe(), self.folder
        for name in ("teach", "distill"):
            (out / "curves" / f"{name}.csv").write_bytes((folder / f"{name}.csv").read_bytes())
        inputs = [folder / "data", folder / "teacher", folder / "student", out / "exported", folder / "front"]
        evaluate(*inputs, out / "curves", out / "bundle", out / "evaluation", block.task, block.evaluate)
        return out / "evaluation"


@pytest.fixture(scope="module", params=TASKS)
def explored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Explored:
    task, folder = request.param, tmp_path_factory.mktemp("explored")
    make = tiny_causal if task == "text-generation" else tiny_model
    source = make(folder / "source", "llama" if task == "text-generation" else "bert")
    made = Explored(folder, Chain(task, source, folder / "data", folder, frozenset()))
    block = made.recipe()
    validate(str(write_rows(folder / "rows.csv")), folder / "data", folder / "report", block.task, block.data)
    teach(folder / "data", folder / "teacher", folder / "teach.csv", block.task, block.teach, Unkept())
    label(folder / "data", folder / "teacher", folder / "signals", block.task, block.label)
    inputs = [folder / name for name in ("data", "signals", "teacher")]
    distill(*inputs, folder / "student", folder / "distill.csv", block.task, block.distill, Unkept())
    inputs = [folder / name for name in ("data", "teacher", "student")]
    explore(*inputs, folder / "front", block.task, block.explore)
    return made


def test_the_front_is_measured_and_drawn(explored: Explored) -> None:
    front = read_front(explored.folder / "front")
    assert len({(point.slice, point.quantization) for point in front.points}) == len(front.points) == 4
    assert any(point.on_front for point in front.points)
    for point in front.points:
        assert 0 < point.p50_low <= point.p50_ms <= point.p50_high and point.per_s > 0
        assert point.loss_low <= point.loss <= point.loss_high
        assert abs(point.estimated_bytes - point.bytes) < 0.15 * point.bytes
    assert (explored.folder / "front" / "front.png").read_bytes().startswith(b"\x89PNG")
    page = (explored.folder / "front" / "front.html").read_text(encoding="utf-8")
    writes = explored.chain.task == "text-generation"
    assert ("tokens/s" in page, "texts/s" in page) == (writes, not writes)
    assert ("bits a byte above the teacher" in page) == writes


def test_the_loss_is_what_teacher_and_part_make_of_validation(explored: Explored) -> None:
    """By the numbers that evaluation itself has for a side, not by the counts."""
    front, block = read_front(explored.folder / "front"), explored.recipe()
    data = load_clean(explored.folder / "data")
    sides = TokenSides(block.task)
    judge, _ = sides.teacher(explored.folder / "teacher", 1)
    assert (judge(data.validation) == front.teacher).all()
    exact = next(point for point in front.points if point.quantization == "float32")
    parts = open_token_model(explored.folder / "student", data, block.task)
    part = parts.plain(exact.slice)
    assert len(part.tokenizer) == exact.tokens < len(parts.whole.tokenizer)
    out = explored.folder / "one"
    out.mkdir(exist_ok=True)
    sides.export(parts, exact.slice, {"float32": out / f"again-{exact.intermediate_size}"}, block.explore)
    found = exported_side(out / f"again-{exact.intermediate_size}", 1, block.task).predict(data.validation)
    if block.task.type == "text-generation":
        family_bytes = sum(len(text.encode()) + 1 for text in data.validation.texts)
        assert exact.quality == pytest.approx(found.nats.sum() / 0.6931471805599453 / family_bytes, rel=1e-4)
    else:
        assert 0 <= exact.quality <= 1


def test_the_cheapest_point_that_holds_the_budget_is_built_and_judged(explored: Explored, tmp_path: Path) -> None:
    cheapest = min(read_front(explored.folder / "front").points, key=lambda point: point.bytes)
    made = explored.built(tmp_path)
    record = next(entry for entry in read_lineage(made / "pruned")["stages"] if entry["stage"] == "prune")["chosen"]
    assert (record["layers"], record["quantization"]) == (cheapest.layers, cheapest.quantization)
    assert download_bytes(made / "exported") == pytest.approx(cheapest.bytes, rel=0.02)
    evaluation = explored.evaluated(made)
    assert "Chosen from" in (evaluation / "report.html").read_text(encoding="utf-8")
    block = explored.recipe()
    gate(evaluation, made / "verdict.json", block.budget, block.gate)
    bounds = {bound["name"] for bound in read_json(made / "verdict.json")["bounds"]}
    lost = "bits_per_byte" if block.task.type == "text-generation" else "span_f1"
    assert f"budget.max_{lost}_loss" in bounds
    assert block.budget is not None
    strict = block.budget.model_copy(update={"max_bytes": 1000})
    with pytest.raises(GateError, match=r"budget\.max_bytes is .*, must be at most 1000"):
        gate(evaluation, made / "again.json", strict, block.gate)


def test_a_budget_that_nobody_meets_ends_before_any_recovery(explored: Explored, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"no point holds max_bytes 1,000 bytes.*Nearest: 2 layers"):
        explored.built(tmp_path, max_bytes=1000)
    assert not (tmp_path / "pruned").exists()
