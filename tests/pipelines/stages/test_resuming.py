"""Stages that were killed in the middle of a training, three times each, end with the files of one that nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.bundle import sha256_of
from pipelines.config import ClassificationRecipe
from pipelines.stages.distill import distill
from pipelines.stages.explore import explore
from pipelines.stages.label import label
from pipelines.stages.prune import prune
from pipelines.stages.teach import teach
from pipelines.stages.validate import validate
from pipelines.techniques.course import Keeper, Unkept
from tests.mortal import Killed, mortal
from tests.recipes import BY_BUDGET, STUDENT_TRAINING, recipe
from tests.sequence_chain import Chain, clean_data
from tests.sequence_recipes import SEQUENCE_TRAINING, by_budget
from tests.tiny import tiny_model, tiny_rows, write_csv
from tests.tiny_generators import tiny_causal

#: (where the outputs go, the keeper): a stage whose every other argument is fixed.
Stage = Callable[[Path, Keeper], None]


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def killed_thrice(stage: Stage, folder: Path) -> None:
    """Each process gets less than a third of the steps further."""
    undisturbed = mortal(folder / "unused", 10**9, seconds=1e9)
    stage(folder / "whole", undisturbed)
    wanted = files(folder / "whole")
    life = int(0.3 * undisturbed.looks)
    assert life > 2 and any(name.endswith("model.safetensors") for name in wanted)
    for _ in range(3):
        with pytest.raises(Killed):
            stage(folder / "resumed", mortal(folder / "kept", life))
    stage(folder / "resumed", last := mortal(folder / "kept", 10**9))
    assert last.looks <= undisturbed.looks - 3 * (life - 1), "of what was done, one batch a process is done again"
    assert files(folder / "resumed") == wanted


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> ClassificationRecipe:
    """By budget, with everything that draws: dropout, folds of the vocabulary, parts, trials of a lever."""
    body = tiny_model(tmp_path_factory.mktemp("body"))
    changes = BY_BUDGET | {"distill__training": STUDENT_TRAINING | {"epochs": 3, "vocabulary_folds": 3}}
    changes["distill__student"] = BY_BUDGET["distill__student"] | {"in_place": 0.5}
    return recipe(teach__source=str(body), teach__sha256=sha256_of(body / "model.safetensors"), **changes)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, block: ClassificationRecipe) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    source = write_csv(folder / "tiny.csv", tiny_rows())
    validate(str(source), folder / "data", folder / "report", block.task, block.data)
    teach(folder / "data", folder / "teacher", folder / "t.csv", block.task, block.teach, Unkept())
    label(folder / "data", folder / "teacher", folder / "signals", block.task, block.label)
    return folder


def test_teach(tmp_path: Path, taught: Path, block: ClassificationRecipe) -> None:
    def stage(out: Path, keeper: Keeper) -> None:
        teach(taught / "data", out / "teacher", out / "curve.csv", block.task, block.teach, keeper)

    killed_thrice(stage, tmp_path)


def test_distill_and_the_choice(tmp_path: Path, taught: Path, block: ClassificationRecipe) -> None:
    """Trials of a lever, the whole alone, the parts, the part without layers; then the recovery of the chosen part."""
    given = [taught / name for name in ("data", "signals", "teacher")]

    def distilled(out: Path, keeper: Keeper) -> None:
        distill(*given, out / "student", out / "curve.csv", block.task, block.distill, keeper)

    killed_thrice(distilled, tmp_path / "distill")
    student = tmp_path / "distill" / "whole" / "student"
    explore(taught / "data", taught / "teacher", student, tmp_path / "front", block.task, block.explore)
    made = [taught / "data", taught / "signals", student, tmp_path / "front"]

    def chosen(out: Path, keeper: Keeper) -> None:
        prune(*made, out / "pruned", out / "curve.csv", block.task, block.budget, block.prune, keeper)

    killed_thrice(chosen, tmp_path / "prune")


def test_prune_step_by_step(tmp_path: Path, taught: Path) -> None:
    fixed = recipe()
    made = [taught / "data", taught / "signals", taught / "teacher", tmp_path]

    def stage(out: Path, keeper: Keeper) -> None:
        prune(*made, out / "pruned", out / "curve.csv", fixed.task, None, fixed.prune, keeper)

    killed_thrice(stage, tmp_path / "prune")


TASK = "text-generation"
OWN_TEXTS: dict[str, Any] = {
    "distill__on_policy": {"share": 0.5, "prompt_tokens": 4, "max_new_tokens": 4, "temperature": 1.0},
    "distill__control": True,
}


@pytest.mark.parametrize("changes", [OWN_TEXTS, by_budget(TASK)], ids=["own texts", "elastic"])
def test_distill_of_a_model_that_writes(tmp_path: Path, changes: dict[str, Any]) -> None:
    chain = Chain(TASK, tiny_causal(tmp_path / "body", "llama"), clean_data(tmp_path, TASK), tmp_path, frozenset())
    block = chain.recipe(**changes, distill__training=SEQUENCE_TRAINING | {"epochs": 6, "patience": 6})
    given = [chain.clean, chain.signals, chain.teacher]

    def stage(out: Path, keeper: Keeper) -> None:
        distill(*given, out / "student", out / "curve.csv", block.task, block.distill, keeper)

    killed_thrice(stage, tmp_path / "distill")
