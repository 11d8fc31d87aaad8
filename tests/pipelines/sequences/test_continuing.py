from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bundle import sha256_of
from pipelines.config import Writer
from pipelines.errors import ModelError
from pipelines.sequences.continuing import written_texts
from tests.tiny_generators import tiny_causal

TEXTS = ["the cat sat on the mat", "once upon a time", "print(name, len(name))"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal(tmp_path_factory.mktemp("writer"), "llama")


def writer(source: Path, **changes: object) -> Writer:
    wanted: dict[str, object] = {"copies": 2, "prompt_tokens": 3, "max_new_tokens": 8, "temperature": 1.0}
    digest = sha256_of(source / "model.safetensors")
    return Writer.model_validate(wanted | {"source": str(source), "sha256": digest} | changes)


def test_new_texts_begin_as_given_ones_do_and_are_the_same_twice(source: Path) -> None:
    made = written_texts(TEXTS, TEXTS, writer(source), 3)
    assert 3 <= len(made) <= 6 and len(set(made)) == len(made)
    assert not set(made) & set(TEXTS)
    assert all("\n" not in text and text == text.strip() for text in made)
    heads = [text[:2] for text in TEXTS]
    assert sum(text[:2] in heads for text in made) >= 3
    assert written_texts(TEXTS, TEXTS, writer(source), 3) == made
    assert written_texts(TEXTS, TEXTS, writer(source), 4) != made
    assert not set(written_texts(TEXTS, made, writer(source), 3)) & set(made)


def test_a_model_without_the_room_is_refused(source: Path) -> None:
    with pytest.raises(ModelError, match=r"reads 64 tokens, but label\.levers\.written asks for 103; lower"):
        written_texts(TEXTS, TEXTS, writer(source, max_new_tokens=100), 3)


def test_other_weights_are_refused(source: Path) -> None:
    with pytest.raises(ModelError, match="sha256 is"):
        written_texts(TEXTS, TEXTS, writer(source, sha256="0" * 64), 3)
