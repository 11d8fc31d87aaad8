from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import DECODER_FILE, ENCODER_FILE, Seq2SeqSession, right_padded
from pipelines.techniques.exporting_seq2seq import export_seq2seq
from pipelines.techniques.generation_parity import check_seq2seq_parity
from tests.made_once import MadeOnce
from tests.tiny_generators import LINES, SEQ2SEQ, unigram_tokenizer

TOLERANCE = 1e-3


def texts() -> list[list[int]]:
    rows: list[list[int]] = unigram_tokenizer()([LINES[0], LINES[11], LINES[4]])["input_ids"]
    return [row[:40] for row in rows]


def checked(model: Any, folder: Path, tolerance: float = TOLERANCE) -> float:
    return check_seq2seq_parity(folder, model, texts(), new_tokens=40, tolerance=tolerance, end=1, pad=0)


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_logits_and_greedy_tokens_are_those_of_transformers(made_once: MadeOnce, kind: str) -> None:
    model, folder = made_once.model(kind)
    assert checked(model, folder) < TOLERANCE


def test_the_encoder_holds_no_decoder_and_the_decoder_no_encoder(made_once: MadeOnce) -> None:
    """Each matrix is in one file, but for the embedding that both sides share."""
    model, folder = made_once.model("t5")
    sizes = [sum(item.nbytes for item in _weights(folder / name)) for name in (ENCODER_FILE, DECODER_FILE)]
    shared = model.get_input_embeddings().weight.numel() * 4
    assert sum(sizes) < sum(weight.numel() for weight in model.parameters()) * 4 + 2 * shared + 4096


def _weights(path: Path) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(item) for item in onnx.load(str(path)).graph.initializer]


def test_padding_of_a_text_changes_nothing(made_once: MadeOnce) -> None:
    _, folder = made_once.model("t5")
    session = Seq2SeqSession(folder)
    start = np.zeros((1, 1), np.int64)
    ids, mask = right_padded([texts()[0]], 0)
    padded = [np.pad(item, ((0, 0), (0, 5))) for item in (ids, mask)]
    plain, _ = session.step(start, mask, session.encode(ids, mask))
    wide, _ = session.step(start, padded[1], session.encode(*padded))
    assert np.abs(plain - wide).max() < 1e-4


def test_other_weights_are_a_hard_error(made_once: MadeOnce) -> None:
    model, folder = made_once.model("t5")
    other = deepcopy(model)
    with torch.no_grad():
        other.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight[1] += 20
    with pytest.raises(ModelError, match=r"differ from torch by .* \(whole, prompt 0, row 0, position [1-9]"):
        checked(other, folder)


def test_the_files_repeat_themselves_elsewhere(made_once: MadeOnce, tmp_path: Path) -> None:
    model, folder = made_once.model("bart")
    export_seq2seq(model, tmp_path, 64)
    for name in (ENCODER_FILE, DECODER_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
