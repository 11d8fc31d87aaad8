"""The comparison of elastic parts with shapes alone: its recipes, its table, and that a run goes on where it was cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import elastic
from benchmarks.chain import recipe_for
from benchmarks.elastic import ALONE, CUT, RECOVERED, SEEDS, SHAPES, Row, alone, board_of, main, section
from pipelines.config import ClassificationRecipe
from pipelines.environment import ROOT
from pipelines.techniques.elastic import slices_of
from pipelines.techniques.shapes import Slice
from tests.recipes import recipe as tiny_recipe
from tests.tiny import tiny_rows, write_csv


def test_every_shape_is_a_part_of_the_boards_elastic_student_and_a_valid_recipe_alone() -> None:
    front = recipe_for("any", ROOT, "-front")
    checked = ClassificationRecipe.model_validate(front)
    assert set(SHAPES) <= set(slices_of(checked.distill.student))
    for shape in SHAPES:
        found = ClassificationRecipe.model_validate(alone(recipe_for("any", ROOT), front, shape, 18))
        assert found.task.seed == 18 and found.distill.student.layers == list(shape.layers)
        assert found.prune.intermediate_size == shape.intermediate_size
        assert found.prune.vocabulary == checked.distill.student.vocabularies[shape.vocabulary]
        assert found.teach == checked.teach


def test_the_table_says_what_elasticity_costs_before_and_after_recovery() -> None:
    sides = {ALONE: (0.90, 0.92), CUT: (0.88, 0.90), RECOVERED: (0.91, 0.92)}
    rows = [Row("1 layer", 17 + at, side, value) for side, values in sides.items() for at, value in enumerate(values)]
    page = section("data", rows, 1001, 1)
    assert "| 1 layer | 91.00 (90.0 to 92.0) | 89.00 (88.0 to 90.0) | -2.00 | 91.50 (91.0 to 92.0) | +0.50 |" in page
    assert (
        "Written by `make bench-elastic` (the board's passes): share of 1001 validation texts answered rightly, mean of seeds 17, 18"
        in page
    )
    shorter = section("data", rows, 1001, 0.33)
    assert (
        "Written by `make bench-elastic SHARE=0.33` (33% of the board's passes in each training, the teacher's too)"
        in shorter
    )


def test_a_share_of_the_passes_is_one_of_every_training_and_of_nothing_else() -> None:
    whole, third = (board_of("any", ROOT, share) for share in (1, 0.33))
    checked = [ClassificationRecipe.model_validate(recipe) for recipe in (third.fixed, third.front)]
    assert [one.teach.training.epochs for one in checked] == [2, 2]
    assert [one.distill.training.epochs for one in checked] == [3, 4]
    assert [one.prune.recovery.epochs for one in checked] == [3, 3]
    assert third.front["distill"]["student"]["whole_epochs"] == 3
    assert third.front["label"] == whole.front["label"] and third.front["explore"] == whole.front["explore"]
    assert whole.fixed == recipe_for("any", ROOT)
    fewest = ClassificationRecipe.model_validate(board_of("any", ROOT, 0.01).front)
    assert fewest.distill.training.epochs == fewest.distill.training.patience == 1


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def rows_of(*sides: str) -> Callable[..., Iterator[Row]]:
        def rows(_name: str, _source: Path, _work: Path, seed: int, shapes: Sequence[Slice]) -> Iterator[Row]:
            asked.append((sides[-1], seed, len(shapes)))
            for at, shape in enumerate(shapes):
                if len(asked) == 2 and at == 2:
                    raise KeyboardInterrupt
                yield from (Row(str(shape), seed, side, 0.5) for side in sides)

        return rows

    monkeypatch.setattr(elastic, "run", lambda *_: {})
    monkeypatch.setattr(elastic, "rows_alone", rows_of(ALONE))
    monkeypatch.setattr(elastic, "rows_elastic", rows_of(CUT, RECOVERED))
    source = tmp_path / "tiny"
    for part in ("train", "validation", "test"):
        write_csv(source / f"{part}.csv", tiny_rows())
    shared = tmp_path / "work" / "shared" / "build" / "tiny"
    (shared / "signals").mkdir(parents=True)
    given = ["--data", str(source), "--work", str(tmp_path / "work"), "--page", str(tmp_path / "page.md")]
    from pipelines.stages.validate import validate

    block = tiny_recipe()
    validate(
        str(write_csv(tmp_path / "t.csv", tiny_rows())), shared / "data", tmp_path / "report", block.task, block.data
    )
    with pytest.raises(KeyboardInterrupt):
        main(given)
    assert asked == [(RECOVERED, SEEDS[0], 4), (ALONE, SEEDS[0], 4)]
    assert main(given) == 0
    assert asked[2:] == [(ALONE, SEEDS[0], 2)] + [(side, seed, 4) for seed in SEEDS[1:] for side in (RECOVERED, ALONE)]
    assert main(given) == 0
    assert len(asked) == 7
    monkeypatch.setattr(elastic, "identity", lambda *_: "of other code")
    assert main(given) == 0
    assert asked[7:] == [(side, seed, 4) for seed in SEEDS for side in (RECOVERED, ALONE)]
    page = (tmp_path / "page.md").read_text()
    assert all(f"| {shape} | 50.00 (50.0 to 50.0) | " in page for shape in SHAPES)
