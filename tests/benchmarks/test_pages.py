"""What benchmarks write: one section each in one page, tables of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import distillation, generation, text_to_text
from benchmarks.chain import recipe_for
from benchmarks.pages import write_section
from pipelines.config import RECIPES, ClassificationRecipe
from pipelines.environment import ROOT
from pipelines.techniques.writing_speed import Run


def test_a_section_is_replaced_and_its_neighbours_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_section(page, "one", "# One\nold")
    write_section(page, "two", "# Two")
    write_section(page, "one", "# One\nnew")
    assert page.read_text() == "<!-- one -->\n# One\nnew\n<!-- one end -->\n\n<!-- two -->\n# Two\n<!-- two end -->\n"


def test_the_rate_is_of_all_tokens_and_the_median_of_the_runs() -> None:
    sides = {
        "transformers, float32": [Run(0.1, 2.0, 100)],
        "slm_registry, int8": [Run(0.01, 0.5, 100), Run(0.01, 0.25, 100), Run(0.01, 9.0, 100)],
    }
    rows = [generation.Measured(name, runs, 4_000_000, 90_000_000) for name, runs in sides.items()]
    lines = generation.table(20_000_000, rows, "alone").splitlines()
    assert "20.0 M random weights" in lines[3]
    assert lines[-2].startswith("| transformers, float32 | 50.0 | 1.00x | 100.0 |")
    assert lines[-1].startswith("| slm_registry, int8 | 200.0 | 4.00x | 10.0 |")


def test_what_labelling_took_is_counted_in_the_last_columns() -> None:
    # 1000 tokens at 1000 a second and 3 s of labelling: 250 a second over one pass, 500 over three.
    assert distillation._with_label(1000, 1000, 3.0, 1) == pytest.approx(250)
    assert distillation._with_label(1000, 1000, 3.0, 3) == pytest.approx(500)


def test_trivial_answers() -> None:
    assert text_to_text.first_sentence("We show e.g. this.  It holds. Always.") == "We show e.g. this."
    assert text_to_text.first_sentence("No stop at all") == "No stop at all"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("stories260k", "text-generation"),
        ("stories260k-small", "text-generation"),
        ("tatoeba_en_de", "text-to-text"),
        ("scitldr_abstract", "text-to-text"),
    ],
)
def test_the_recipes_of_models_that_write_are_valid(name: str, task: str) -> None:
    assert RECIPES[task].model_validate(recipe_for(name, ROOT)).task.type == task  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["any", "clinc150_oos"])
def test_a_front_and_the_fixed_shape_beside_it_share_what_comes_before_the_student(name: str) -> None:
    fixed, front = (
        RECIPES["text-classification"].model_validate(recipe_for(name, ROOT, kind)) for kind in ("", "-front")
    )
    assert isinstance(fixed, ClassificationRecipe) and isinstance(front, ClassificationRecipe)
    assert (fixed.task, fixed.data, fixed.teach, fixed.label) == (front.task, front.data, front.teach, front.label)
    assert front.budget is not None and fixed.budget is None
