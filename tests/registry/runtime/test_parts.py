"""What a session computes must not depend on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from slm_registry.runtime.parts import EXACT_INTEGERS, load_session


def _product(out: Path, weights: np.ndarray) -> None:
    """u8 times s8 -> s32, as an int8 model multiplies."""
    constants = [numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["rows", "weights"], ["sums"])],
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, [None, len(weights)])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [None, weights.shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(out))


def test_int8_products_do_not_saturate(tmp_path: Path) -> None:
    """Two products of a pair exceed 16 bits: 255 * 127 * 2."""
    weights = np.where(np.arange(64 * 32).reshape(64, 32) % 3, 127, -127).astype(np.int8)
    rows = np.full((4, 64), 255, dtype=np.uint8)
    _product(tmp_path / "model.onnx", weights)
    session = load_session(tmp_path / "model.onnx", threads=1)
    assert session.get_session_options().get_session_config_entry(EXACT_INTEGERS) == "1"
    (sums,) = session.run(None, {"rows": rows})
    np.testing.assert_array_equal(sums, rows.astype(np.int64) @ weights.astype(np.int64))
