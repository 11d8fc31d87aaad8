"""A student without layers: where its vectors come from, what it can see, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.bundle import Bundle
from pipelines.config import ClassificationRecipe, StudentStatic
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.families.static import principal_components
from tests.recipes import LOSSES, recipe
from tests.tiny import tiny_model

LABELS = ["login", "parcel", "refund"]
FAMILY = EncoderClassifier()


def choice(size: int) -> StudentStatic:
    return StudentStatic(kind="static", hidden_size=size)


@pytest.fixture(params=["bert", "roberta", "eurobert"])
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body", request.param), LABELS)


def logits(bundle: Bundle, text: str) -> torch.Tensor:
    rows = FAMILY.encode(bundle.tokenizer, [text], 32)
    with torch.inference_mode():
        return FAMILY.forward(bundle.model, FAMILY.collate(bundle.tokenizer, rows)).logits


def reference(rows: np.ndarray, size: int) -> np.ndarray:
    """Principal components by another way, of unit variance, up to each one's sign."""
    centred = rows - rows.mean(0)
    found: np.ndarray = centred @ np.linalg.svd(centred, full_matrices=False)[2][:size].T
    return found / found.std()


def test_it_begins_with_the_teachers_answer_to_each_token_alone(teacher: Bundle) -> None:
    student = FAMILY.student(teacher, choice(8))
    vocabulary = student.model.get_input_embeddings().weight
    begin, end = (int(token) for token in FAMILY.encode(teacher.tokenizer, [""], 32)[0])
    answers = []
    for token in range(len(vocabulary)):
        with torch.inference_mode():
            states = teacher.model.base_model(torch.tensor([[begin, token, end]])).last_hidden_state
        answers.append(states[0].mean(0).numpy())
    wanted = reference(np.array(answers, dtype=np.float64), 8)
    assert np.abs(vocabulary.detach().numpy()) == pytest.approx(np.abs(wanted), abs=1e-3)


def test_it_sees_words_and_not_their_order(teacher: Bundle) -> None:
    student = FAMILY.student(teacher, choice(8))
    one, other = logits(student, "where is my parcel"), logits(student, "parcel my is where")
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(logits(teacher, "where is my parcel"), logits(teacher, "parcel my is where"), atol=1e-6)
    assert not torch.allclose(one, logits(student, "where is my refund"), atol=1e-6)


def test_it_has_no_layers_and_is_saved_and_loaded_as_any_other(teacher: Bundle, tmp_path: Path) -> None:
    student = FAMILY.student(teacher, choice(8))
    FAMILY.save(student, tmp_path / "out")
    loaded = FAMILY.load(tmp_path / "out")
    assert FAMILY.depth(loaded.model) == 0
    assert FAMILY.teacher_layers(loaded.model) == []
    assert loaded.model.config.id2label == dict(enumerate(LABELS))
    assert torch.allclose(logits(loaded, "my refund"), logits(student, "my refund"), atol=1e-6)


def test_more_numbers_than_the_teacher_has_are_refused(teacher: Bundle) -> None:
    with pytest.raises(
        ModelError, match=r"hidden_size 33, but the teacher has 32 numbers a token; .* under distill\.student"
    ):
        FAMILY.student(teacher, choice(33))


@given(rows=st.integers(4, 40), width=st.integers(2, 12), data=st.data())
def test_components_are_those_of_another_way(rows: int, width: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, min(rows - 1, width)))
    given_rows = np.random.default_rng(data.draw(st.integers(0, 2**32))).normal(size=(rows, width))
    found = principal_components(torch.from_numpy(given_rows), size).numpy()
    assert np.abs(found) == pytest.approx(np.abs(reference(given_rows, size)), abs=1e-4)
    again = principal_components(torch.from_numpy(given_rows.copy()), size).numpy()
    assert (found == again).all()


@pytest.mark.parametrize(
    ("stage", "term"), [("distill", "hidden_mse"), ("prune", "hidden_cosine"), ("distill", "relation")]
)
def test_a_loss_that_reads_layers_is_refused(stage: str, term: str) -> None:
    changes: dict[str, Any] = {"distill__student": {"kind": "static", "hidden_size": 8}, "label__relations": True}
    changes |= {"distill__losses": LOSSES, "prune__losses": LOSSES}
    assert isinstance(recipe(**changes), ClassificationRecipe)
    with pytest.raises(ValidationError, match=rf"a static student has no layers: .* of {stage}\.losses to 0"):
        recipe(**(changes | {f"{stage}__losses": LOSSES | {term: 0.5}}))
