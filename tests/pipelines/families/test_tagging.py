from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.bundle import Bundle, sha256_of
from pipelines.config import SequenceRecipe
from pipelines.errors import ModelError
from pipelines.families.loading import load_model, save_bundle
from pipelines.families.tagging import Tagger, tags_of
from pipelines.stages.teach import teach
from pipelines.techniques.course import Unkept
from tests.families_cells import ENCODERS
from tests.sequence_chain import ONE_EPOCH, clean_data
from tests.sequence_recipes import sequence_recipe
from tests.tiny import tiny_config, tiny_model, tiny_tokenizer

TASK = "token-classification"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_data(tmp_path_factory.mktemp("clean"), TASK)


def tagger(folder: Path, tags: list[str], kind: str = "bert") -> Path:
    """A random tagger with these tags, as a checkpoint."""
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = tiny_config(kind, len(tokenizer))
    config.id2label, config.label2id = dict(enumerate(tags)), {tag: at for at, tag in enumerate(tags)}
    save_bundle(Bundle(AutoModelForTokenClassification.from_config(config), tokenizer, {}), folder)
    return folder


def taught(clean: Path, source: Path, out: Path, mode: str) -> Path:
    """The stage's teacher."""
    given: dict[str, Any] = {
        "mode": mode,
        "source": str(source),
        "sha256": sha256_of(source / "model.safetensors"),
        "trust_remote_code": None,
    }
    recipe: SequenceRecipe = sequence_recipe(
        TASK, teach=given | ({"training": ONE_EPOCH} if mode == "finetune" else {})
    )
    teach(clean, out / "teacher", out / "curve.csv", recipe.task, recipe.teach, Unkept())
    return out / "teacher"


def test_a_ready_teacher_without_a_head_is_refused_and_a_tuned_one_gets_it(clean: Path, tmp_path: Path) -> None:
    body = tiny_model(tmp_path / "body")
    with pytest.raises(
        ModelError,
        match=r"body/model\.safetensors: lacks classifier\.bias, classifier\.weight; random weights would stand in for them, "
        r"get a complete checkpoint, or set teach\.mode: finetune",
    ):
        taught(clean, body, tmp_path / "ready", "ready")
    assert tags_of(Tagger().load(taught(clean, body, tmp_path / "tuned", "finetune")).model) == ["B-NAME", "O"]


def test_a_ready_teacher_with_other_tags_is_refused(clean: Path, tmp_path: Path) -> None:
    source = tagger(tmp_path / "source", ["O", "B-PLACE"])
    with pytest.raises(ModelError, match=r"only the teacher has B-PLACE, only the data has B-NAME; use teach\.mode"):
        taught(clean, source, tmp_path, "ready")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_ready_teacher_means_the_same_by_each_tag(clean: Path, tmp_path: Path, kind: str) -> None:
    """Its classes come in the data's order; the logits of each tag are what they were."""
    source = tagger(tmp_path / "source", ["O", "B-NAME"], kind)
    ids = {"input_ids": torch.tensor([[2, 40, 41, 42, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    before, after = load_model(source, Tagger.auto), Tagger().load(taught(clean, source, tmp_path, "ready")).model
    assert tags_of(before) == ["O", "B-NAME"] and tags_of(after) == ["B-NAME", "O"]
    with torch.inference_mode():
        assert torch.allclose(before(**ids).logits.flip(-1), after(**ids).logits, atol=1e-5)


def test_a_head_of_another_size_is_left_aside(clean: Path, tmp_path: Path) -> None:
    source = tagger(tmp_path / "source", ["O", "B-X", "I-X", "B-Y"])
    assert tags_of(Tagger().load(taught(clean, source, tmp_path, "finetune")).model) == ["B-NAME", "O"]
