from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipelines.bundle import Bundle
from pipelines.config import TableBlocks
from pipelines.errors import ModelError
from pipelines.families.encoder import EncoderClassifier
from pipelines.techniques.exporting import check_parity, export_onnx, onnx_logits, open_session, unburdened
from pipelines.techniques.quantizing import dynamic_int8, static_int8
from tests.tiny import tiny_model, tiny_rows

FAMILY = EncoderClassifier()
TEXTS = [text for text, _ in tiny_rows()[::5]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return FAMILY.load_pretrained(tiny_model(tmp_path_factory.mktemp("body")), ["a", "b", "c"])


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(FAMILY, bundle, 32, path)
    return path


def test_parity_on_padded_and_single_texts(bundle: Bundle, exported: Path) -> None:
    assert check_parity(exported, FAMILY, bundle, TEXTS, 32, 1e-5) < 1e-5


def test_weights_that_differ_are_a_hard_error(bundle: Bundle, exported: Path, tmp_path: Path) -> None:
    FAMILY.save(Bundle(bundle.model, bundle.tokenizer, {}), tmp_path / "copy")
    other = FAMILY.load(tmp_path / "copy")
    FAMILY.calibrate(other.model, 1 / 1.5, torch.zeros(3))
    with pytest.raises(ModelError, match=r"differ from torch by .* \(padded, text '.*quantize\.parity allows 1e-05"):
        check_parity(exported, FAMILY, other, TEXTS, 32, 1e-5)


def test_a_graph_that_lost_its_mask_is_a_hard_error(bundle: Bundle, exported: Path, tmp_path: Path) -> None:
    model = onnx.load(str(exported))
    for node in model.graph.node:
        node.input[:] = ["input_ids" if name == "attention_mask" else name for name in node.input]
    kept = [item for item in model.graph.input if item.name != "attention_mask"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, str(tmp_path / "maskless.onnx"))
    with pytest.raises(ModelError, match="padded batches would be wrong"):
        check_parity(tmp_path / "maskless.onnx", FAMILY, bundle, TEXTS, 32, 1e-5)


def test_the_file_holds_no_trace_of_the_machine_and_repeats_itself(
    bundle: Bundle, exported: Path, tmp_path: Path
) -> None:
    export_onnx(FAMILY, bundle, 32, tmp_path / "again.onnx")
    content = exported.read_bytes()
    assert content == (tmp_path / "again.onnx").read_bytes()
    for trace in (b".py", b"site-packages", str(Path.home()).encode() + b"/"):
        assert trace not in content


def test_padding_does_not_change_an_answer(bundle: Bundle, exported: Path) -> None:
    session = open_session(exported, 1)
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    batch = onnx_logits(session, FAMILY, bundle.tokenizer, rows)
    single = np.concatenate([onnx_logits(session, FAMILY, bundle.tokenizer, [row]) for row in rows])
    assert np.abs(batch - single).max() < 1e-5


@pytest.mark.parametrize("per_channel", [True, False])
def test_int8_is_smaller_and_close(bundle: Bundle, exported: Path, tmp_path: Path, per_channel: bool) -> None:
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    dynamic_int8(exported, tmp_path / "dynamic.onnx", per_channel=per_channel, embeddings=None)
    batches = [{name: value.numpy() for name, value in FAMILY.collate(bundle.tokenizer, [row]).items()} for row in rows]
    static_int8(exported, tmp_path / "static.onnx", batches, per_channel=per_channel)
    expected = onnx_logits(open_session(exported, 1), FAMILY, bundle.tokenizer, rows)
    for name in ("dynamic", "static"):
        path = tmp_path / f"{name}.onnx"
        logits = onnx_logits(open_session(path, 1), FAMILY, bundle.tokenizer, rows)
        assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max() + 0.02, name


def test_a_matrix_that_two_nodes_read_is_unsigned_and_stored_once(tmp_path: Path) -> None:
    """On x86 without VNNI onnxruntime cannot load it signed."""
    numbers = np.random.default_rng(0)
    matrices = {"shared": numbers.normal(size=(16, 16)), "own": numbers.normal(size=(16, 16))}
    reads = [("x", "shared", "a"), ("a", "shared", "b"), ("b", "own", "logits")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", [left, right], [out]) for left, right, out in reads],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 16])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in matrices.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "a.onnx"))
    batches = [{"x": numbers.normal(size=(1, 16)).astype(np.float32)} for _ in range(8)]
    static_int8(tmp_path / "a.onnx", tmp_path / "b.onnx", batches, per_channel=True)
    stored = {tensor.name: tensor for tensor in onnx.load(str(tmp_path / "b.onnx")).graph.initializer}
    assert {"shared_quantized_unsigned", "own_quantized"} <= stored.keys()
    assert "shared_quantized" not in stored
    assert stored["shared_quantized_unsigned"].data_type == onnx.TensorProto.UINT8
    answers = [open_session(tmp_path / name, 1).run(None, batches[0])[0] for name in ("a.onnx", "b.onnx")]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.1 * np.abs(answers[0]).max()


def test_embeddings_in_blocks_are_half_as_large_and_leave_the_rest_as_it_is(
    bundle: Bundle, exported: Path, tmp_path: Path
) -> None:
    rows = FAMILY.encode(bundle.tokenizer, TEXTS, 32)
    for name, embeddings in {"int8": None, "int4": TableBlocks(bits=4, block_size=32)}.items():
        dynamic_int8(exported, tmp_path / name, per_channel=True, embeddings=embeddings)
    whole, small = (onnx.load(str(tmp_path / name)).graph for name in ("int8", "int4"))
    kinds = [node.op_type for node in small.node]
    assert kinds.count("MatMulInteger") == [node.op_type for node in whole.node].count("MatMulInteger") > 0
    assert "GatherBlockQuantized" in kinds
    stored = [
        sum(tensor.ByteSize() for tensor in graph.initializer if "embeddings" in tensor.name)
        for graph in (whole, small)
    ]
    assert stored[1] < 0.75 * stored[0]
    expected = onnx_logits(open_session(exported, 1), FAMILY, bundle.tokenizer, rows)
    logits = onnx_logits(open_session(tmp_path / "int4", 1), FAMILY, bundle.tokenizer, rows)
    assert 0 < np.abs(logits - expected).max() < 0.3 * np.abs(expected).max() + 0.02


def test_blocks_that_do_not_fit_an_embedding_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"is 32 wide, no multiple of block_size 64: .* dynamic_int8: embeddings: null"
    ):
        dynamic_int8(exported, tmp_path / "out", per_channel=True, embeddings=TableBlocks(bits=4, block_size=64))


def test_nothing_converted_is_an_error(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["logits"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "logits")]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), str(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match="quantization converted no node"):
        dynamic_int8(tmp_path / "a.onnx", tmp_path / "b.onnx", per_channel=True, embeddings=None)


def test_garbage_is_collected_again_after_an_export_that_failed() -> None:
    with pytest.raises(RuntimeError, match="cannot be traced"), unburdened():
        assert not gc.isenabled()
        raise RuntimeError("cannot be traced")
    assert gc.isenabled()


def test_garbage_stays_where_nobody_wants_it_collected() -> None:
    gc.disable()
    try:
        with unburdened():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
