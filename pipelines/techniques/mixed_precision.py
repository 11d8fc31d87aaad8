"""A precision for each matrix by its sensitivity: 4 bits, and 8 where 4 move the model's answer most for each byte they save."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import MixedForm
from pipelines.errors import ModelError
from pipelines.techniques.blockwise import Blocks
from pipelines.techniques.quantizing_weights import Rounding, input_moments, rows_of, write_blocks
from pipelines.techniques.weightmatrices import (
    Product,
    names_in_torch,
    normalise_products,
    products_of,
    tables_of,
    weights_of,
)

LOW, HIGH = 4, 8
#: Digits of a KL that are kept: on more of them processors do not agree.
_DIGITS = 4


@dataclass(frozen=True)
class Matrix:
    """A weight matrix: torch's name of it, how many weights it has, nats a prediction that LOW bits in it alone cost, and the bits it got."""

    matrix: str
    weights: int
    nats: float
    bits: int


@dataclass(frozen=True, eq=False)
class Place:
    """A constant of the graph: a product's weight [K, N], or an embedding [V, H] where there is no product."""

    name: str
    values: np.ndarray
    product: Product | None

    def blocks(self, rounding: Rounding, bits: int) -> Blocks:
        """Its values in this many bits."""
        if self.product is None:
            return rounding.of_table(self.name, self.values, bits)
        return rounding.of(self.product, self.values, bits)

    def restored(self, blocks: Blocks) -> np.ndarray:
        """The constant that a reader of these blocks computes with."""
        if self.product is None:
            return np.ascontiguousarray(blocks.restored(self.values.shape[1]).T)
        return np.ascontiguousarray(blocks.restored(len(self.values)))


def mixed_in_blocks(
    source: Path, out: Path, form: MixedForm, batches: Sequence[dict[str, np.ndarray]], threads: int, model: Any
) -> tuple[int, list[Matrix]]:
    """Write `source` with each matrix in its precision; how many products were converted, and the matrices, most sensitive first.

    `batches` are feeds of the graph, which must answer logits; `model` is what it was exported from, in torch, and names the matrices.
    Raises ModelError where form.share_high has room for no matrix, or block_size does not divide an embedding.
    """
    moments = input_moments(source, batches, threads) if form.rounding == "gptq" else None
    mix = open_mix(source, Rounding(form.block_size, form.symmetric, moments), model)
    lost, sizes = mix.sensitivities(batches, threads), mix.sizes
    high = most_sensitive(lost, sizes, form.share_high)
    converted = mix.write(out, high, form.accuracy_level)
    found = [Matrix(name, sizes[name], lost[name], HIGH if name in high else LOW) for name in sizes]
    return converted, sorted(found, key=lambda each: -each.nats / each.weights)


@dataclass(frozen=True)
class Mix:
    """A normalised graph, the places of each of its matrices, how they are rounded, and their blocks of LOW bits."""

    graph: Any
    matrices: Mapping[str, list[Place]]
    rounding: Rounding
    low: Mapping[Place, Blocks]

    @property
    def sizes(self) -> dict[str, int]:
        """Weights of each matrix."""
        return {name: places[0].values.size for name, places in self.matrices.items()}

    def sensitivities(self, batches: Sequence[dict[str, np.ndarray]], threads: int) -> dict[str, float]:
        """What LOW bits in each matrix alone cost, as `divergences` measures it."""
        altered = {
            name: {each.name: each.restored(self.low[each]) for each in places}
            for name, places in self.matrices.items()
        }
        return divergences(self.graph, altered, batches, threads)

    def write(self, out: Path, high: Collection[str], accuracy_level: int) -> int:
        """Write the graph, these matrices in HIGH bits and the others in LOW; once. Answers how many products were converted."""
        raised = {place: place.blocks(self.rounding, HIGH) for name in high for place in self.matrices[name]}
        blocks = {**self.low, **raised}
        products = {place.name: made for place, made in blocks.items() if place.product is not None}
        tables = {place.name: made for place, made in blocks.items() if place.product is None}
        return write_blocks(self.graph, out, products, tables, accuracy_level)


def open_mix(source: Path, rounding: Rounding, model: Any) -> Mix:
    """The matrices of an exported file by torch's names of them; a head tied to its embedding is one matrix in two places."""
    import onnx

    graph = onnx.load(str(source))
    normalise_products(graph)
    weights, tables = weights_of(graph), tables_of(graph)
    places = [Place(item.weight, weights[item.weight], item) for item in products_of(graph)]
    places += [Place(name, table, None) for name, table in tables.items()]
    names = names_in_torch(model, weights | tables)
    matrices: dict[str, list[Place]] = {}
    for place in places:
        matrices.setdefault(names[place.name], []).append(place)
    return Mix(graph, matrices, rounding, {place: place.blocks(rounding, LOW) for place in places})


def divergences(
    graph: Any,
    altered: Mapping[str, Mapping[str, np.ndarray]],
    batches: Sequence[dict[str, np.ndarray]],
    threads: int,
) -> dict[str, float]:
    """KL(p || q), in nats a prediction, from the graph's answers p to its answers q with some constants altered, for each of `altered`.

    One session serves all: onnxruntime takes another value for a constant that is named among the inputs too.
    """
    session = _open_to_changes(graph, {name for changes in altered.values() for name in changes}, threads)
    lost, rows = dict.fromkeys(altered, 0.0), 0
    for batch in batches:
        whole = _log_probabilities(session, batch, {})
        for name, changes in altered.items():
            other = _log_probabilities(session, batch, changes)
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


def _log_probabilities(session: Any, batch: dict[str, np.ndarray], changes: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N, C], a row a prediction."""
    rows = rows_of(session.run(["logits"], {**batch, **changes})[0], batch)
    rows = rows - rows.max(axis=1, keepdims=True)
    log: np.ndarray = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return log
