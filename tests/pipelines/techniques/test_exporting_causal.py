from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import CausalSession, left_padded
from pipelines.techniques.exporting_causal import export_causal
from pipelines.techniques.generation_parity import check_causal_parity
from tests.made_once import MadeOnce
from tests.tiny_generators import CAUSAL, LINES, bpe_tokenizer

TOLERANCE = 1e-4


def exported(made_once: MadeOnce, kind: str) -> tuple[Any, Path]:
    """A tiny model and its file."""
    model, folder = made_once.model(kind)
    return model, folder / "model.onnx"


def prompts() -> list[list[int]]:
    """One far shorter and one longer than the tiny models' window of 16 tokens."""
    rows: list[list[int]] = bpe_tokenizer()([LINES[0], LINES[4], LINES[11] * 3])["input_ids"]
    return [rows[0], rows[1][:2], rows[2][:30]]


def checked(model: Any, path: Path, tolerance: float = TOLERANCE) -> float:
    tokenizer = bpe_tokenizer()
    return check_causal_parity(
        path,
        model,
        prompts(),
        new_tokens=24,
        tolerance=tolerance,
        end=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


@pytest.mark.parametrize("kind", CAUSAL)
def test_logits_and_greedy_tokens_are_those_of_transformers(made_once: MadeOnce, kind: str) -> None:
    model, path = exported(made_once, kind)
    assert checked(model, path) < TOLERANCE


def test_only_the_last_logits_where_asked(made_once: MadeOnce) -> None:
    _, path = exported(made_once, "llama")
    session = CausalSession(path)
    ids, mask = left_padded(prompts(), 1)
    whole, cache = session.step(ids, mask, session.empty(3))
    for keep in (1, 3, 1000):
        last, same = session.step(ids, mask, session.empty(3), keep)
        assert np.abs(last - whole[:, -keep:]).max() < 1e-6
        assert all((same[name] == cache[name]).all() for name in cache)


def test_optimum_reads_the_names(made_once: MadeOnce) -> None:
    _, path = exported(made_once, "llama")
    graph = onnx.load(str(path)).graph
    axes = {
        value.name: [item.dim_param or item.dim_value for item in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes["input_ids"] == axes["position_ids"] == ["batch", "length"]
    assert axes["attention_mask"] == ["batch", "total"]
    assert axes["past_key_values.2.value"] == ["batch", 2, "past", 8]
    assert axes["present.2.key"] == ["batch", 2, "total", 8]
    assert axes["logits"] == ["batch", "kept", 320]
    assert axes["num_logits_to_keep"] == []
    assert len(axes) == 4 + 1 + 2 * 2 * 3


def test_the_file_depends_on_the_weights_alone(made_once: MadeOnce, tmp_path: Path) -> None:
    model, path = exported(made_once, "llama")
    folder = tmp_path / "elsewhere"
    model.save_pretrained(folder)
    code = (
        "import sys; from pathlib import Path; from transformers import AutoModelForCausalLM as auto\n"
        "from pipelines.techniques.exporting_causal import export_causal\n"
        "export_causal(auto.from_pretrained(sys.argv[1]).eval(), Path(sys.argv[1], 'again.onnx'), 64)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    content = path.read_bytes()
    assert content == (folder / "again.onnx").read_bytes()
    for trace in (b".py", b"site-packages", str(Path.home()).encode() + b"/"):
        assert trace not in content


def test_other_weights_are_a_hard_error(made_once: MadeOnce) -> None:
    from copy import deepcopy

    model, path = exported(made_once, "gpt2")
    other = deepcopy(model)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    with pytest.raises(ModelError, match=r"differ from torch by .* \(whole, prompt 0, row 0, position"):
        checked(other, path)
    with pytest.raises(
        ModelError, match=r"leaves transformers' generate\(\) \(greedy, prompt \d, row 0, new token \d+"
    ):
        checked(other, path, tolerance=1e9)


def test_a_graph_without_its_window_is_a_hard_error(made_once: MadeOnce, tmp_path: Path) -> None:
    """Mistral's window is 16 tokens; the file of the same weights without one is wrong beyond it, and found out."""
    from copy import deepcopy

    model, _ = made_once.model("mistral")
    blind = deepcopy(model)
    blind.config.sliding_window = None
    export_causal(blind, tmp_path / "blind.onnx", 64)
    with pytest.raises(ModelError, match=r"differ from torch|leaves transformers"):
        checked(model, tmp_path / "blind.onnx")


def test_contexts_that_the_model_has_not(made_once: MadeOnce, tmp_path: Path) -> None:
    model, _ = made_once.model("llama")
    with pytest.raises(ModelError, match="max_length 65 is beyond the model's context of 64 tokens"):
        export_causal(model, tmp_path / "long.onnx", 65)
