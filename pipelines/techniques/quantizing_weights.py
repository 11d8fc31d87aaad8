"""Integer weights for exported generators: 4 or 8 bits a block of inputs (MatMulNBits), or int8 with activations measured at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import BlockwiseForm, TableBlocks
from pipelines.errors import ModelError
from pipelines.techniques.blockwise import Blocks, compensated, round_to_nearest
from pipelines.techniques.tracing import save_graph
from pipelines.techniques.weightmatrices import (
    Product,
    drop_unused,
    is_lookup,
    normalise_products,
    products_of,
    tables_of,
    weights_of,
)

#: Domain of onnxruntime's own operators.
_DOMAIN = "com.microsoft"
#: Share of the moments' mean diagonal that GPTQ adds to it (Frantar et al. 2023).
_DAMPING = 0.01


def in_blocks(source: Path, out: Path, form: BlockwiseForm, moments: Mapping[str, np.ndarray] | None) -> int:
    """`blockwise_weights` as a recipe says it."""
    return blockwise_weights(
        source,
        out,
        bits=form.bits,
        head_bits=form.head_bits,
        embedding_bits=form.embedding_bits,
        block_size=form.block_size,
        symmetric=form.symmetric,
        accuracy_level=form.accuracy_level,
        moments=moments,
    )


def blockwise_weights(
    source: Path,
    out: Path,
    *,
    bits: int,
    head_bits: int,
    embedding_bits: int | None,
    block_size: int,
    symmetric: bool,
    accuracy_level: int,
    moments: Mapping[str, np.ndarray] | None = None,
) -> int:
    """Write `source` with its constant matrices in `bits` (4 or 8), the head's in `head_bits`; answers how many were converted.

    Embeddings stay float32, or are kept in `embedding_bits`: one that is tied to the head, of the same bits, is stored once.
    accuracy_level 4 multiplies in int8, 0 in float32 (onnxruntime's MatMulNBits). With `moments` of each product's inputs
    (see input_moments) the rounding is GPTQ's, else to the nearest.
    """
    import onnx

    model = onnx.load(str(source))
    normalise_products(model)
    rounding, weights = Rounding(block_size, symmetric, moments), weights_of(model)
    products = {
        product.weight: rounding.of(product, weights[product.weight], head_bits if product.is_head else bits)
        for product in products_of(model)
    }
    tables: dict[str, Blocks] = {}
    if embedding_bits is not None:
        tables = {name: rounding.of_table(name, table, embedding_bits) for name, table in tables_of(model).items()}
    return write_blocks(model, out, products, tables, accuracy_level)


@dataclass(frozen=True)
class Rounding:
    """How a matrix becomes blocks: to the nearest code, or GPTQ's way where the moments of its inputs are known; the head to the nearest."""

    block_size: int
    symmetric: bool
    moments: Mapping[str, np.ndarray] | None

    def of(self, product: Product, weight: np.ndarray, bits: int) -> Blocks:
        """A product's weight [K, N] in blocks."""
        if self.moments is None or product.is_head:
            return round_to_nearest(weight, bits, self.block_size, self.symmetric)
        moments = self.moments[product.node.input[0]]
        return compensated(weight, moments, bits, self.block_size, self.symmetric, _DAMPING)

    def of_table(self, name: str, table: np.ndarray, bits: int) -> Blocks:
        """An embedding [V, H] in blocks along H, to the nearest code. Raises ModelError where block_size does not divide H."""
        if table.shape[1] % self.block_size:
            raise ModelError(
                f"embedding {name!r} is {table.shape[1]} wide, no multiple of block_size {self.block_size}: "
                "choose a block_size that divides it, or leave embeddings as they are (blockwise: embedding_bits: null; dynamic_int8: embeddings: null)"
            )
        return round_to_nearest(table.T, bits, self.block_size, self.symmetric)


def write_blocks(
    model: Any, out: Path, products: Mapping[str, Blocks], tables: Mapping[str, Blocks], accuracy_level: int
) -> int:
    """Write a normalised graph with blocks in place of each product's weight and of these embeddings; how many products were converted."""
    writer = _Writer(model, accuracy_level)
    found = products_of(model)
    for product in found:
        writer.convert(product.node, products[product.weight])
    writer.convert_embeddings(tables)
    _save(model, out)
    return len(found)


def _save(model: Any, out: Path) -> None:
    """Without what nothing reads any more, and with the name of the operators that are onnxruntime's own."""
    import onnx

    drop_unused(model)
    if not any(item.domain == _DOMAIN for item in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    save_graph(model, out)


def tables_in_blocks(path: Path, wanted: TableBlocks) -> None:
    """Rewrite a file with its float embeddings in blocks, to the nearest code. Raises ModelError where a block does not divide one's width."""
    import onnx

    model = onnx.load(str(path))
    rounding = Rounding(wanted.block_size, symmetric=True, moments=None)
    tables = {name: rounding.of_table(name, table, wanted.bits) for name, table in tables_of(model).items()}
    _Writer(model, accuracy_level=0).convert_embeddings(tables)
    _save(model, path)


def dynamic_int8_products(source: Path, out: Path, *, per_channel: bool, embeddings: TableBlocks | None) -> int:
    """int8 matrices, activations rounded by their range at run time; embeddings int8 too, or in blocks. Answers how many were converted."""
    import onnx

    from pipelines.techniques.quantizing import dynamic_int8

    model = onnx.load(str(source))
    normalise_products(model)
    between = out.with_name(f"{out.name}.normal")
    save_graph(model, between)
    try:
        dynamic_int8(between, out, per_channel=per_channel, embeddings=embeddings)
    finally:
        between.unlink()
        between.with_name(f"{between.name}.data").unlink(missing_ok=True)
    return sum(node.op_type == "MatMulInteger" for node in onnx.load(str(out)).graph.node)


def input_moments(source: Path, batches: Sequence[dict[str, np.ndarray]], threads: int) -> dict[str, np.ndarray]:
    """Sum of x xT [K, K] over the inputs x of each product, by the name of the product's input.

    `batches` are feeds of the exported graph; what attention_mask counts as padding is left out where it can be told.
    """
    import onnx
    import onnxruntime

    model = onnx.load(str(source))
    normalise_products(model)
    names = sorted({product.node.input[0] for product in products_of(model) if not product.is_head})
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    total: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in zip(names, session.run(names, batch), strict=True):
            rows = rows_of(value, batch)
            total[name] = total.get(name, 0.0) + rows.T @ rows
    return total


def rows_of(value: np.ndarray, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a graph answers to a batch [..., C] as float64 rows [N, C], without those that attention_mask counts as padding."""
    mask = batch.get("attention_mask", np.ones(0)).reshape(-1).astype(bool)
    rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
    return rows[mask] if len(rows) == len(mask) else rows


class _Writer:
    """Replaces nodes of one graph by their blockwise kind, each constant once."""

    def __init__(self, model: Any, accuracy_level: int) -> None:
        self._graph, self._level = model.graph, accuracy_level
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._written: dict[tuple[int, bytes, bytes], list[str]] = {}

    def convert(self, node: Any, blocks: Blocks) -> None:
        """One MatMul to MatMulNBits."""
        from onnx import helper

        length, width = self._constants[node.input[1]].dims
        attributes = {"K": length, "N": width, "bits": blocks.bits, "block_size": blocks.block}
        if self._level:
            attributes["accuracy_level"] = self._level
        names = self._store(blocks, f"{node.input[1]}_q{blocks.bits}")
        new = helper.make_node(
            "MatMulNBits", [node.input[0], *names], list(node.output), name=node.name, domain=_DOMAIN, **attributes
        )
        node.CopyFrom(new)

    def convert_embeddings(self, tables: Mapping[str, Blocks]) -> None:
        """Every Gather from one of these matrices to GatherBlockQuantized."""
        from onnx import helper, numpy_helper

        for node in [node for node in self._graph.node if is_lookup(node) and node.input[0] in tables]:
            blocks = tables[node.input[0]]
            names = self._store(blocks, f"{node.input[0]}_q{blocks.bits}")
            flat = f"{names[0]}_rows"
            if not any(item.output[0] == flat for item in self._graph.node):
                shape = numpy_helper.from_array(np.array([len(blocks.codes), -1], np.int64), f"{flat}_shape")
                self._graph.initializer.append(shape)
                self._graph.node.insert(0, helper.make_node("Reshape", [names[0], shape.name], [flat]))
            new = helper.make_node(
                "GatherBlockQuantized",
                [flat, node.input[1], *names[1:]],
                list(node.output),
                name=node.name,
                domain=_DOMAIN,
                bits=blocks.bits,
                block_size=blocks.block,
                gather_axis=0,
                quantize_axis=1,
            )
            self.replace(node.output[0], new)

    def replace(self, output: str, new: Any) -> None:
        """Put `new` where the node stands that makes `output`."""
        for node in self._graph.node:
            if output in node.output:
                node.CopyFrom(new)

    def _store(self, blocks: Blocks, name: str) -> list[str]:
        """Names of codes, scales and zero points; equal ones, of a head tied to its embedding, stand once."""
        from onnx import numpy_helper

        packed = blocks.packed()
        key = (blocks.bits, packed.tobytes(), blocks.scales.tobytes())
        if key not in self._written:
            parts = {"": packed, "_scales": blocks.scales, "_zeros": blocks.packed_zeros()}
            arrays = {f"{name}{tail}": array for tail, array in parts.items() if array is not None}
            self._graph.initializer.extend(numpy_helper.from_array(array, item) for item, array in arrays.items())
            self._written[key] = list(arrays)
        return self._written[key]
