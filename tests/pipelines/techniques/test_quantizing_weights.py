from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipelines.errors import ModelError
from pipelines.techniques.cached_decoding import DECODER_FILE, ENCODER_FILE, CausalSession, left_padded
from pipelines.techniques.quantizing_weights import (
    blockwise_weights,
    dynamic_int8_products,
    input_moments,
    rows_of,
)
from pipelines.techniques.weightmatrices import expected_products, normalise_products, require_count
from tests.made_once import MadeOnce
from tests.tiny_generators import CAUSAL, LINES, SEQ2SEQ, bpe_tokenizer

PLAIN: dict[str, Any] = {
    "head_bits": 8,
    "embedding_bits": None,
    "block_size": 32,
    "symmetric": True,
    "accuracy_level": 0,
}


def logits(path: Path) -> np.ndarray:
    rows = bpe_tokenizer()(list(LINES[:4]))["input_ids"]
    ids, mask = left_padded(rows, 1)
    session = CausalSession(path)
    answer: np.ndarray = session.step(ids, mask, session.empty(4), keep=1)[0]
    return answer


@pytest.mark.parametrize("kind", [*CAUSAL, *SEQ2SEQ])
def test_every_matrix_is_converted(made_once: MadeOnce, kind: str, tmp_path: Path) -> None:
    model, folder = made_once.model(kind)
    files = ["model.onnx"] if kind in CAUSAL else [ENCODER_FILE, DECODER_FILE]
    for bits in (4, 8):
        count = sum(blockwise_weights(folder / name, tmp_path / name, bits=bits, **PLAIN) for name in files)
        assert count == expected_products(model)
        written = [node for name in files for node in onnx.load(str(tmp_path / name)).graph.node]
        assert sum(node.op_type == "MatMulNBits" for node in written) == count
    count = sum(
        dynamic_int8_products(folder / name, tmp_path / name, per_channel=True, embeddings=None) for name in files
    )
    assert count == expected_products(model)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral"])
def test_the_quantized_graph_computes_nearly_the_same(made_once: MadeOnce, kind: str, tmp_path: Path) -> None:
    _, folder = made_once.model(kind)
    whole = logits(folder / "model.onnx")
    errors = []
    for bits in (8, 4):
        blockwise_weights(folder / "model.onnx", tmp_path / "q.onnx", bits=bits, **PLAIN)
        errors.append(np.abs(logits(tmp_path / "q.onnx") - whole).mean() / whole.std())
    assert errors[0] < 0.05 < errors[1] < 0.6


def test_embeddings_shrink_too_and_a_tied_one_stands_once(made_once: MadeOnce, tmp_path: Path) -> None:
    _, folder = made_once.model("gpt2")
    sizes = {}
    for name, bits in (("float", None), ("int8", 8)):
        out = tmp_path / f"{name}.onnx"
        blockwise_weights(folder / "model.onnx", out, bits=8, **(PLAIN | {"embedding_bits": bits}))
        sizes[name] = out.stat().st_size
    assert np.abs(logits(tmp_path / "float.onnx") - logits(tmp_path / "int8.onnx")).max() < 0.5
    tables = (320 + 64) * 32
    assert sizes["float"] - sizes["int8"] > 3.9 * 320 * 32 > 0.8 * 3.9 * tables  # the word table costs nothing more


def test_a_width_that_no_block_divides_is_refused(made_once: MadeOnce, tmp_path: Path) -> None:
    _, folder = made_once.model("gpt2")
    with pytest.raises(ModelError, match=r"is 32 wide, no multiple of block_size 64: choose a block_size that divides"):
        blockwise_weights(
            folder / "model.onnx", tmp_path / "q.onnx", bits=4, **(PLAIN | {"embedding_bits": 8, "block_size": 64})
        )


def test_fewer_than_expected_is_a_hard_error() -> None:
    require_count("x.onnx", 13, 13)
    with pytest.raises(ModelError, match=r"x\.onnx: 12 of 13 weight matrices were quantized"):
        require_count("x.onnx", 12, 13)


def test_gemm_in_other_forms() -> None:
    """Transposed weights and no bias are right; a factor is refused rather than dropped."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    weight = np.arange(12, dtype=np.float32).reshape(4, 3)

    def graph(**attributes: Any) -> Any:
        node = helper.make_node("Gemm", ["x", "w"], ["logits"], name="gemm", **attributes)
        axes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "logits")]
        made = helper.make_graph([node], "g", axes[:1], axes[1:], [numpy_helper.from_array(weight, "w")])
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])

    model = graph(transB=1)
    normalise_products(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    inputs = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": inputs})[0], inputs @ weight.T)
    with pytest.raises(ModelError, match="Gemm 'gemm' with"):
        normalise_products(graph(alpha=0.5))


def test_calibrated_rounding_is_nearer_than_the_nearest(made_once: MadeOnce, tmp_path: Path) -> None:
    _, folder = made_once.model("llama")
    path = folder / "model.onnx"
    session = CausalSession(path)
    ids = np.random.default_rng(0).integers(2, 320, (8, 40))
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.tile(np.arange(40), (8, 1)),
        **session.empty(8),
    }
    moments = input_moments(path, [feed], 1)
    whole, errors = logits(path), []
    for known in (None, moments):
        blockwise_weights(path, tmp_path / "q.onnx", bits=4, moments=known, **PLAIN)
        errors.append(float(np.square(logits(tmp_path / "q.onnx") - whole).mean()))
    assert errors[1] < errors[0]


def test_what_an_answer_says_of_padding_is_left_out() -> None:
    batch = {"attention_mask": np.array([[1, 1, 1], [1, 0, 0]])}
    tokens = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(rows_of(tokens, batch)[:, 0], [0, 2, 4, 6])
    assert rows_of(tokens[:, 0], batch).shape == (2, 2)  # a row a text, whatever its length
