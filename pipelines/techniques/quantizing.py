"""int8 quantization of an exported file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipelines.config import TableBlocks
from pipelines.errors import ModelError
from pipelines.techniques.quantizing_weights import tables_in_blocks

#: What counts as converted: nodes that hold int8 weights.
INTEGER_NODES = frozenset({"MatMulInteger", "QLinearMatMul", "QGemm", "DequantizeLinear", "DynamicQuantizeMatMul"})


def dynamic_int8(source: Path, out: Path, *, per_channel: bool, embeddings: TableBlocks | None) -> None:
    """int8 weights, scales of activations found at run time; embeddings int8 too, or in blocks.

    Raises ModelError where nothing was converted, or a block does not divide an embedding's width.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    kinds = [kind for kind in IntegerOpsRegistry if embeddings is None or kind != "Gather"]
    with _without_advice():
        quantize_dynamic(source, out, op_types_to_quantize=kinds, per_channel=per_channel, weight_type=QuantType.QInt8)
    _require_integers(out)
    if embeddings is not None:
        tables_in_blocks(out, embeddings)


def static_int8(source: Path, out: Path, batches: Sequence[dict[str, np.ndarray]], *, per_channel: bool) -> None:
    """int8 weights and activations with scales fixed on calibration batches. Raises ModelError where nothing was converted."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    with _without_advice():
        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            extra_options={"MatMulConstBOnly": True},
        )
    _shared_as_unsigned(out)
    _require_integers(out)


def _shared_as_unsigned(path: Path) -> None:
    """Make each int8 weight that several nodes read an unsigned one of the same values, zero point moved with it.

    On x86 without VNNI onnxruntime makes such weights unsigned itself to keep products exact, under one name for each
    reader: a file with shared ones would not load there.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights and readers[node.output[0]] > 1:
            for place, name in ((0, node.input[0]), (2, node.input[2])):
                values = numpy_helper.to_array(weights[name]).astype(np.int16) + 128
                node.input[place] = f"{name}_unsigned"
                model.graph.initializer.append(numpy_helper.from_array(values.astype(np.uint8), node.input[place]))
                if readers[name] == 1:
                    model.graph.initializer.remove(weights[name])
    onnx.save(model, str(path))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Drop onnxruntime's advice to pre-process the file: the export has folded its constants, and the quantizer infers shapes itself."""

    def wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def _require_integers(path: Path) -> None:
    import onnx

    model = onnx.load(str(path))
    if not any(node.op_type in INTEGER_NODES for node in model.graph.node):
        raise ModelError(f"{path}: quantization converted no node; use quantize.technique: none for this architecture")
