"""Small ONNX graphs made by hand, for tests of the engines."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Make = Callable[..., bytes]
SIDE = 5
CHANNELS = 4


@pytest.fixture
def convolutions() -> Make:
    return _convolutions


@pytest.fixture
def products() -> Make:
    return _products


@pytest.fixture
def difference() -> Make:
    return _difference


def _convolutions(num_layers: int = 3, channels: int = CHANNELS, seed: int = 0) -> bytes:
    """Conv and Relu in turn: "x" (batch, channels, 5, 5) to "y" of the same shape, and "half"."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for layer in range(num_layers):
        kernel = random.standard_normal((channels, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel / (3 * channels**0.5), f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        last = "y" if layer == num_layers - 1 else f"r{layer}"
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [last]))
    nodes.append(helper.make_node("Mul", ["y", "factor"], ["half"]))
    weights.append(numpy_helper.from_array(np.full((), 0.5, np.float32), "factor"))
    shape = ("batch", channels, SIDE, SIDE)
    return _model(nodes, {"x": shape}, {"y": shape, "half": shape}, weights)


def _products(num_nodes: int, size: int = 256) -> bytes:
    """Many products of matrices: "x" (batch, size, size) to "y", which takes a while."""
    nodes, last = [], "x"
    for node in range(num_nodes):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"p{node}"]))
        last = f"p{node}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    weights = [numpy_helper.from_array(matrix.astype(np.float32), "w")]
    return _model(nodes, {"x": ("batch", size, size)}, {"y": ("batch", size, size)}, weights)


def _difference() -> bytes:
    """Two inputs, "b" before "a", and "d" = a - b, all (batch, 3)."""
    shape = ("batch", 3)
    nodes = [helper.make_node("Sub", ["a", "b"], ["d"])]
    return _model(nodes, {"b": shape, "a": shape}, {"d": shape}, [])


def _model(
    nodes: list[NodeProto],
    inputs: dict[str, tuple[str | int, ...]],
    outputs: dict[str, tuple[str | int, ...]],
    weights: list[TensorProto],
) -> bytes:
    def values(shapes: dict[str, tuple[str | int, ...]]) -> list[ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), weights)
    opset = [helper.make_opsetid("", 18)]
    content: bytes = helper.make_model(
        graph, opset_imports=opset, ir_version=10
    ).SerializeToString()
    return content
