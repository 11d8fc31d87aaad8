"""An elastic student opened: which parts it has, and that each is what the search scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.bundle import WITHOUT_LAYERS, Bundle
from pipelines.data.clean import CleanData, load_clean
from pipelines.errors import ModelError
from pipelines.exploring.classifiers import ClassifierParts, open_classifier
from pipelines.families import family_of
from pipelines.families.base import TokenIds
from pipelines.techniques.shapes import Slice
from tests.flows.untaught import untaught
from tests.recipes import recipe

TASK = recipe(task__max_length=32).task
FAMILY = family_of(TASK)
WITHOUT = Slice((), 0, 0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parts")
    untaught(place)
    return place


def opened(folder: Path) -> tuple[ClassifierParts, CleanData]:
    data = load_clean(folder / "data")
    return open_classifier(folder / "student", data, TASK), data


def logits(bundle: Bundle, texts: list[str]) -> torch.Tensor:
    return answers(bundle.model, bundle.tokenizer, FAMILY.encode(bundle.tokenizer, texts, 32))


def answers(model: Any, tokenizer: Any, rows: list[TokenIds]) -> torch.Tensor:
    with torch.inference_mode():
        return FAMILY.forward(model, FAMILY.collate(tokenizer, rows)).logits


@pytest.mark.parametrize("part", [WITHOUT, Slice((0, 2), 32, 4, 0)])
def test_a_part_cut_out_answers_as_it_was_scored(folder: Path, part: Slice) -> None:
    parts, data = opened(folder)
    texts = data.validation.texts
    scored = answers(parts.shared(part), parts.whole.tokenizer, parts.cuts[0].encode(FAMILY, texts, 32))
    assert torch.allclose(logits(parts.plain(part), texts), scored, atol=1e-5)


def test_the_part_without_layers_is_the_one_beside_the_whole_and_stays_as_it_is(folder: Path) -> None:
    parts, data = opened(folder)
    assert parts.space[0] == Slice((0, 1, 2), 64, 4, 0) and parts.space[-1] == WITHOUT
    bare = FAMILY.load(folder / "student" / WITHOUT_LAYERS)
    cut = parts.plain(WITHOUT)
    assert FAMILY.depth(cut.model) == 0 and len(cut.tokenizer) < len(bare.tokenizer)
    assert torch.equal(
        logits(Bundle(parts.shared(WITHOUT), bare.tokenizer, {}), data.test.texts), logits(bare, data.test.texts)
    )


def test_a_student_without_that_part_says_so(folder: Path) -> None:
    parts, _ = opened(folder)
    lacking = replace(parts, without_layers=None)
    assert WITHOUT not in lacking.space
    with pytest.raises(ModelError, match=r"no part without layers; set distill\.student\.without_layers"):
        lacking.plain(WITHOUT)
