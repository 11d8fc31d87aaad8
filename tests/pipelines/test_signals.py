from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import Label, Vocabulary
from pipelines.errors import DataError, ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.fanning import Serial
from pipelines.signals import Hearing, read_signals, write_signals
from pipelines.techniques.vocabulary import kept_tokens, prune_vocabulary
from tests.recipes import recipe
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
TEXTS = [text for text, _ in tiny_rows()[:20]]


@pytest.fixture
def teacher(tmp_path: Path) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path / "body"), ["a", "b", "c"])


def store(teacher: Bundle, folder: Path, **wanted: object) -> Path:
    encoded = FAMILY.encode(teacher.tokenizer, TEXTS, 32)
    settings = Label.model_validate(
        {
            "batch_size": 6,
            "hidden_layers": [0, 2],
            "levers": {"cut_mix": 0, "dropped_words": 0, "typos": 0, "written": None},
            "relations": True,
        }
        | wanted
    )
    hearing = Hearing(folder, FAMILY, teacher, recipe().task, settings)
    write_signals(folder, hearing, TEXTS, encoded, {"typos": TEXTS[15:]}, {"texts": len(TEXTS)}, Serial())
    return folder


def test_what_is_read_is_what_the_teacher_says(teacher: Bundle, tmp_path: Path) -> None:
    signals = read_signals(store(teacher, tmp_path / "signals"))
    chosen = [TEXTS[7], TEXTS[3]]
    inputs = FAMILY.collate(teacher.tokenizer, FAMILY.encode(teacher.tokenizer, chosen, 32))
    with torch.inference_mode():
        live = FAMILY.forward(teacher.model, inputs, [2], relations=True)
    rows = signals.rows_of(chosen)
    assert torch.allclose(signals.logits_of(rows), live.logits, atol=2e-3)
    stored = signals.padded(signals.hidden[2], rows, live.mask.shape[1])
    assert torch.allclose(stored[live.mask], live.hidden[2][live.mask], atol=5e-3)
    for ours, theirs in zip(signals.relations, live.relations, strict=True):
        assert torch.allclose(signals.padded(ours, rows, live.mask.shape[1])[live.mask], theirs[live.mask], atol=5e-3)
    assert signals.levers == {"typos": TEXTS[15:]}


def test_which_texts_are_cut_alike_is_told_by_words_not_ids(teacher: Bundle, tmp_path: Path) -> None:
    signals = read_signals(store(teacher, tmp_path / "signals"))
    rows, encoded = signals.rows_of(TEXTS), FAMILY.encode(teacher.tokenizer, TEXTS, 32)
    kept = kept_tokens(teacher.tokenizer, encoded, Vocabulary(min_count=6, keep_first=0))
    smaller = prune_vocabulary(teacher.model, teacher.tokenizer, kept)
    ours = FAMILY.encode(smaller, TEXTS, 32)
    stayed = [set(ids) <= set(kept) for ids in encoded]
    assert signals.cut_alike(rows, smaller, ours).tolist() == stayed
    assert 0 < sum(stayed) < len(stayed)


def test_stored_compactly(teacher: Bundle, tmp_path: Path) -> None:
    signals = read_signals(store(teacher, tmp_path / "signals"))
    assert signals.logits.dtype == np.float16
    assert isinstance(signals.hidden[0], np.memmap)
    assert not (store(teacher, tmp_path / "less", hidden_layers=[], relations=False) / "hidden.0.npy").exists()


def test_the_same_run_writes_the_same_bytes(teacher: Bundle, tmp_path: Path) -> None:
    one, two = store(teacher, tmp_path / "one"), store(teacher, tmp_path / "two")
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_found_and_named(teacher: Bundle, tmp_path: Path, damage: str) -> None:
    path = store(teacher, tmp_path / "signals") / "logits.npy"
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-10])
    with pytest.raises(
        DataError, match=r"logits\.npy: the stored signal file is (damaged|missing); `dvc repro` makes it again"
    ):
        read_signals(path.parent)


def test_a_text_that_the_teacher_has_not_seen_is_named(teacher: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lack the text 'never seen'"):
        read_signals(store(teacher, tmp_path / "signals")).rows_of(["never seen"])


def test_a_layer_that_the_teacher_lacks_is_refused_before_any_work(teacher: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"label\.hidden_layers \[7\]: the teacher has layers 0 to 2"):
        store(teacher, tmp_path / "signals", hidden_layers=[7])
    assert not (tmp_path / "signals").exists()


def test_a_state_beyond_float16_is_refused_and_named(teacher: Bundle, tmp_path: Path) -> None:
    """As MobileBERT's, which no layer normalizes."""
    teacher.model.bert.encoder.layer[-1].output.LayerNorm.bias.data[3] = 7e4
    with pytest.raises(ModelError, match=r"hidden\.2 holds 7e\+04, beyond float16's 65504 .* label\.hidden_layers"):
        store(teacher, tmp_path / "signals")
