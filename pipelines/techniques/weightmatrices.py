"""The constant matrices of an exported graph: brought into one form, so that no quantizer passes one over in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import ModelError


@dataclass(frozen=True)
class Product:
    """One MatMul with a constant right side: the node, its name of the weight [K, N], and whether it makes the logits."""

    node: Any
    weight: str
    is_head: bool


def expected_products(model: Any) -> int:
    """How many products with a constant matrix the exported graphs of a torch model hold: linear layers, each expert's, the head.

    Counted on the torch side, so that what an export writes in another form is missed by a quantizer, and noticed.
    """
    from torch import nn

    count = 0
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            count += {2: 1, 3: parameter.shape[0]}.get(parameter.ndim, 0)
    return count


def normalise_products(model: Any) -> None:
    """Gemm with a constant matrix becomes MatMul and Add; a transposed constant, or an expert's slice of one, a constant of its own.

    Changes the graph in place. Raises ModelError where a Gemm scales its product, which nothing here knows how to keep.
    """
    from onnx import helper

    constants = _Constants(model.graph)
    nodes = []
    for node in model.graph.node:
        weight = constants.matrix(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is None:
            nodes.append(node)
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if attributes.get("transA") or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            raise ModelError(f"exported graph: Gemm {node.name!r} with {sorted(attributes)} cannot be quantized")
        weight = constants.transposed(weight) if attributes.get("transB") else weight
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    drop_unused(model)


class _Constants:
    """The constant matrices of a graph by name, those that are made by transposing or choosing one of several included."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}

    def matrix(self, name: str) -> str | None:
        """Name of a constant of two axes with this value, or None where it is no such thing."""
        if name in self._tensors:
            return name if len(self._tensors[name].dims) == 2 else None
        maker = self._makers.get(name)
        if maker is None:
            return None
        if maker.op_type == "Transpose":
            inner = self.matrix(maker.input[0])
            return None if inner is None else self.transposed(inner)
        stack, place = (self._tensors.get(item) for item in (*maker.input, "", "")[:2])
        if maker.op_type != "Gather" or stack is None or place is None or len(stack.dims) != 3 or len(place.dims):
            return None
        from onnx import numpy_helper

        return self._keep(f"{name}_constant", numpy_helper.to_array(stack)[int(numpy_helper.to_array(place))])

    def transposed(self, name: str) -> str:
        """Name of the same constant with its axes swapped."""
        from onnx import numpy_helper

        return self._keep(f"{name}_transposed", numpy_helper.to_array(self._tensors[name]).T)

    def _keep(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
            self._graph.initializer.append(self._tensors[name])
        return name


def products_of(model: Any) -> list[Product]:
    """Every MatMul with a constant matrix [K, N], in the graph's order; the last one before the logits is the head."""
    shapes = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    found = [node for node in model.graph.node if node.op_type == "MatMul" and shapes.get(node.input[1]) == 2]
    has_logits = any(value.name == "logits" for value in model.graph.output)
    return [Product(node, node.input[1], has_logits and node is found[-1]) for node in found]


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """The constant matrices [K, N] of the products by name."""
    from onnx import numpy_helper

    wanted = {product.weight for product in products_of(model)}
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in wanted}


def is_lookup(node: Any) -> bool:
    """Whether a node takes rows of its first input."""
    return node.op_type == "Gather" and not any(attribute.i for attribute in node.attribute)


def tables_of(model: Any) -> dict[str, np.ndarray]:
    """The constant float matrices [V, H] whose rows are looked up, by name: embeddings."""
    from onnx import numpy_helper

    wanted = {node.input[0] for node in model.graph.node if is_lookup(node)}
    tables = [tensor for tensor in model.graph.initializer if tensor.name in wanted and len(tensor.dims) == 2]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tables if tensor.data_type == 1}


def names_in_torch(model: Any, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What torch calls each exported matrix, found by its values: exporters number what they transpose. Those not found keep their names."""
    known: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        parts = {name: array} if array.ndim == 2 else {f"{name}[{at}]": array[at] for at in range(len(array))}
        for part, values in parts.items():
            if values.ndim == 2:
                known.setdefault(_digest(values), part)
                known.setdefault(_digest(values.T), part)
    return {name: known.get(_digest(values), name) for name, values in weights.items()}


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def require_count(place: Any, converted: int, expected: int) -> None:
    """ModelError where fewer products were converted than the model has matrices."""
    if converted < expected:
        raise ModelError(
            f"{place}: {converted} of {expected} weight matrices were quantized; the rest would stay float32 unnoticed. "
            "Use quantize.technique: none for this architecture"
        )


def drop_unused(model: Any) -> None:
    """Remove nodes and constants that no output needs."""
    graph = model.graph
    while True:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        nodes = [node for node in graph.node if any(output in used for output in node.output)]
        if len(nodes) == len(graph.node):
            break
        graph.ClearField("node")
        graph.node.extend(nodes)
    inputs = {value.name for value in graph.input}
    for index in reversed(range(len(graph.initializer))):
        name = graph.initializer[index].name
        if name not in used and name not in inputs:
            del graph.initializer[index]
