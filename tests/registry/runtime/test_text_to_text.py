"""Answering a text with another: as transformers does, alone, in batches and in streams."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from slm_registry import TextToText, UsageError
from slm_registry.runtime.loading import load_folder

from tests.made_once import MadeOnce
from tests.registry.generators import torch_greedy, with_ends
from tests.tiny_generators import SEQ2SEQ

TEXTS = ["the cat sat on the mat", "import os", "once upon a time there was a small house by the sea", "def"]


def loaded(folder: Path) -> TextToText:
    model = load_folder(folder)
    assert isinstance(model, TextToText)
    return model


def rows_of(model: TextToText) -> list[list[int]]:
    return [list(model._opened().tokenizer.encode(text).ids) for text in TEXTS]


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_greedy_tokens_are_those_of_transformers(made_once: MadeOnce, kind: str, tmp_path: Path) -> None:
    torch_model, folder = made_once.model(kind)
    model = loaded(folder)
    rows = rows_of(model)
    ends = list(model._ends)
    wanted = torch_greedy(torch_model, rows, 20, ends, left=False)
    assert wanted == [torch_greedy(torch_model, [row], 20, ends, left=False)[0] for row in rows]
    for batch_size in (1, 3, 4):
        found = model.generate(TEXTS, max_new_tokens=20, batch_size=batch_size)
        assert [list(one.token_ids) for one in found] == wanted
    ends = [wanted[0][2], wanted[2][6]]
    ended = loaded(with_ends(folder, tmp_path / "ended", ends)).generate(TEXTS, max_new_tokens=20)
    assert [list(one.token_ids) for one in ended] == torch_greedy(torch_model, rows, 20, ends, left=False)


def test_text_streams_and_stops(made_once: MadeOnce) -> None:
    model = loaded(made_once.model("t5")[1])
    (whole,) = model.generate(TEXTS[:1], max_new_tokens=20)
    assert whole.text == model._opened().tokenizer.decode(list(whole.token_ids))
    stream = model.stream(TEXTS[0], max_new_tokens=20)
    assert "".join(stream) == whole.text
    assert stream.result == whole
    stop = whole.text[4:8]
    (stopped,) = model.generate(TEXTS[:1], max_new_tokens=20, stop=[stop])
    assert (stopped.text, stopped.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    options = {"max_new_tokens": 9, "temperature": 1.5, "seed": 2}
    with ThreadPoolExecutor(8) as pool:
        expected = model.generate(TEXTS, **options)  # type: ignore[arg-type]
        assert all(found == expected for found in pool.map(lambda _: model.generate(TEXTS, **options), range(24)))  # type: ignore[arg-type]


def test_texts_that_are_too_long(made_once: MadeOnce) -> None:
    model = loaded(made_once.model("t5")[1])
    text = "the cat " * 90
    with pytest.raises(UsageError, match="text 1 is longer than 64 tokens; shorten it, or cut it with truncate"):
        model.generate(["fine", text], max_new_tokens=2)
    (cut,) = model.generate([text], max_new_tokens=2, truncate=True)
    assert cut.prompt_tokens == 64


def test_an_answer_ends_with_the_decoders_positions(made_once: MadeOnce) -> None:
    model = loaded(made_once.model("bart")[1])
    found = model.generate(["the cat"], max_new_tokens=500)[0]
    assert (len(found.token_ids), found.finish_reason) == (63, "length") or found.finish_reason == "end"
    with pytest.raises(UsageError, match="text 0 is longer"):
        model.generate(["the cat " * 90], max_new_tokens=2)


def test_a_first_token_that_is_forced(made_once: MadeOnce, tmp_path: Path) -> None:
    import torch

    torch_model, folder = made_once.model("bart")
    model = loaded(shutil.copytree(folder, tmp_path / "forced"))
    rows = rows_of(model)[:1]
    (tmp_path / "forced" / "generation_config.json").write_text(json.dumps({"forced_bos_token_id": 42}))
    (found,) = loaded(tmp_path / "forced").generate(TEXTS[:1], max_new_tokens=8)
    with torch.inference_mode():
        wanted = torch_model.generate(
            torch.tensor(rows), do_sample=False, num_beams=1, max_new_tokens=8, forced_bos_token_id=42
        )[0, 1:].tolist()
    assert [*found.token_ids] == wanted[: len(found.token_ids)]
    assert found.token_ids[0] == 42


def test_files_that_do_not_belong_together(made_once: MadeOnce, tmp_path: Path) -> None:
    folder = shutil.copytree(made_once.model("t5")[1], tmp_path / "mixed")
    shutil.copyfile(folder / "decoder_model.onnx", folder / "encoder_model.onnx")
    with pytest.raises(UsageError, match=r"encoder_model\.onnx: it must take input_ids and attention_mask"):
        load_folder(folder)
    (folder / "decoder_model.onnx").unlink()
    with pytest.raises(UsageError, match=r"decoder_model\.onnx is missing"):
        load_folder(folder)
