"""A precision for each matrix by its sensitivity: 4 bits, and 8 where 4 cost the model's answer most for each byte they save."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import MixedForm
from pipelines.errors import ModelError
from pipelines.techniques.quantizing_weights import Rounding, input_moments, rows_of, write_blocks
from pipelines.techniques.weightmatrices import names_in_torch, normalise_products, products_of, weights_of

LOW, HIGH = 4, 8
#: Digits of a KL that are kept: threads and processors agree on no more.
_DIGITS = 4


@dataclass(frozen=True)
class Matrix:
    """A weight matrix: torch's name of it, how many weights it has, nats a prediction that LOW bits in it alone cost, and the bits it got."""

    matrix: str
    weights: int
    nats: float
    bits: int


def mixed_in_blocks(
    source: Path,
    out: Path,
    form: MixedForm,
    batches: Sequence[dict[str, np.ndarray]],
    threads: int,
    model: Any,
) -> tuple[int, list[Matrix]]:
    """Write `source` with each matrix in its precision; how many products were converted, and the matrices, most sensitive first.

    `batches` are feeds of the graph, which must answer logits; `model` is what it was exported from, in torch, and names the matrices.
    Head and embedding have the form's bits. Raises ModelError where form.share_high has room for no matrix.
    """
    import onnx

    graph = onnx.load(str(source))
    normalise_products(graph)
    weights = weights_of(graph)
    moments = input_moments(source, batches, threads) if form.rounding == "gptq" else None
    rounding = Rounding(form.block_size, form.symmetric, moments)
    products = {product.weight: product for product in products_of(graph)}
    layers = [name for name, product in products.items() if not product.is_head]
    blocks = {name: rounding.of(products[name], weights[name], LOW) for name in layers}
    lost = sensitivities(graph, {name: blocks[name].restored(len(weights[name])) for name in layers}, batches, threads)
    sizes = {name: weights[name].size for name in layers}
    high = most_sensitive(lost, sizes, form.share_high)
    blocks |= {name: rounding.of(products[name], weights[name], HIGH) for name in high}
    blocks |= {
        name: rounding.of(product, weights[name], form.head_bits)
        for name, product in products.items()
        if product.is_head
    }
    converted = write_blocks(
        graph, out, blocks, form.embedding_bits, form.block_size, form.symmetric, form.accuracy_level
    )
    known = names_in_torch(model, weights)
    found = [Matrix(known[name], sizes[name], lost[name], HIGH if name in high else LOW) for name in layers]
    return converted, sorted(found, key=lambda each: -each.nats / each.weights)


def sensitivities(
    graph: Any, altered: Mapping[str, np.ndarray], batches: Sequence[dict[str, np.ndarray]], threads: int
) -> dict[str, float]:
    """KL(p || q), in nats a prediction, from the graph's answers p to its answers q with one constant altered, for each of `altered`.

    One session serves all: onnxruntime takes another value for a constant that is named among the inputs too.
    """
    session = _open_to_changes(graph, altered, threads)
    lost, rows = dict.fromkeys(altered, 0.0), 0
    for batch in batches:
        whole = _log_probabilities(session, batch, {})
        for name, weight in altered.items():
            other = _log_probabilities(session, batch, {name: weight})
            lost[name] += float((np.exp(whole) * (whole - other)).sum())
        rows += len(whole)
    return {name: float(f"{max(total, 0.0) / rows:.{_DIGITS}g}") for name, total in lost.items()}


def most_sensitive(lost: Mapping[str, float], sizes: Mapping[str, int], share: float) -> set[str]:
    """The matrices that lose most for each byte saved, the worst first, each that still fits into this share of all weights.

    LOW bits save the same of every weight, so a byte's loss is a weight's. Raises ModelError where none fits.
    """
    total = sum(sizes.values())
    left = share * total
    high = set()
    for name in sorted(sizes, key=lambda each: -lost[each] / sizes[each]):
        if sizes[name] <= left:
            high.add(name)
            left -= sizes[name]
    if not high:
        raise ModelError(
            f"quantize.share_high {share}: none of {len(sizes)} matrices is so small, the smallest has "
            f"{min(sizes.values()) / total:.3f} of the weights; raise it, or use technique: blockwise with {LOW} bits"
        )
    return high


def _open_to_changes(graph: Any, names: Collection[str], threads: int) -> Any:
    """A session of a copy of the graph whose runs may bring other values for these constants."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    for tensor in graph.graph.initializer:
        if tensor.name in names:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(value)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _log_probabilities(session: Any, batch: dict[str, np.ndarray], changes: dict[str, np.ndarray]) -> np.ndarray:
    """[N, C], a row a prediction."""
    rows = rows_of(session.run(["logits"], batch | changes)[0], batch)
    rows = rows - rows.max(axis=1, keepdims=True)
    log: np.ndarray = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return log
