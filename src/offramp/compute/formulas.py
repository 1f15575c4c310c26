"""FLOPs of single operators from their arguments and results; other operators count 0."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor

Formula = Callable[[Sequence[Any], Any], int]
"""FLOPs from an operator's positional arguments and its result."""


def _convolution(args: Sequence[Any], out: Tensor) -> int:
    """Each weight is used once per output cell; the weight's shape accounts for groups."""
    weight: Tensor = args[1]
    return 2 * out.shape[0] * prod(out.shape[2:]) * weight.numel()


def _transposed(args: Sequence[Any], out: Tensor) -> int:
    """Each weight is used once per input cell."""
    inputs, weight = args[:2]
    return int(2 * inputs.shape[0] * prod(inputs.shape[2:]) * weight.numel())


def _either_convolution(args: Sequence[Any], out: Tensor) -> int:
    return _transposed(args, out) if args[6] else _convolution(args, out)


def _linear(args: Sequence[Any], out: Tensor) -> int:
    return 2 * out.numel() * int(args[0].shape[-1])


def _added_product(args: Sequence[Any], out: Tensor) -> int:
    """A sum and a matrix product: the product's inner size counts."""
    return 2 * out.numel() * int(args[1].shape[-1])


def _dot(args: Sequence[Any], out: Tensor) -> int:
    return 2 * int(args[0].numel())


def _summed_products(args: Sequence[Any], out: Tensor) -> int:
    """`addbmm`: the products of a whole batch, summed."""
    batch, _, inner = args[1].shape
    return int(2 * batch * inner * out.numel())


def _attention(args: Sequence[Any], out: Any) -> int:
    """QK^T and AV; if several query heads share a key, query heads count."""
    query, key, value = args[:3]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(2 * pairs * (query.shape[-1] + value.shape[-1]))


def _recurrent(args: Sequence[Any], out: Any) -> int:
    """Layers of LSTM, GRU or RNN: each weight matrix is used once per step and sequence.

    Arguments are (steps, state, weights, has_biases, ...), or, for sequences of several lengths,
    (packed steps, lengths, state, weights, ...).
    """
    weights = args[2] if isinstance(args[3], bool) else args[3]
    return _per_step(args[0], [weight for weight in weights if weight.ndim == 2])


def _recurrent_on_gpu(args: Sequence[Any], out: Any) -> int:
    return _per_step(args[0], [weight for weight in args[1] if weight.ndim == 2])


def _recurrent_on_cpu(args: Sequence[Any], out: Any) -> int:
    """One layer in one direction: weights of the input and of the state."""
    return _per_step(args[0], args[1:3])


def _per_step(steps: Tensor, weights: Sequence[Tensor]) -> int:
    return 2 * prod(steps.shape[:-1]) * sum(weight.numel() for weight in weights)


def _int8_convolution(args: Sequence[Any], out: Tensor) -> int:
    weight: Tensor = args[1].unpack()[0]
    return _convolution([None, weight], out)


_FUSED_ATTENTION = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)

_INT8_LINEAR = ("linear", "linear_relu", "linear_dynamic", "linear_relu_dynamic")

ATTENTION: Mapping[str, Formula] = {f"aten.{name}": _attention for name in _FUSED_ATTENTION}
"""Attention as one operator, in the variants of all devices."""

PRODUCTS: Mapping[str, Formula] = {
    "aten.convolution": _either_convolution,
    "aten._convolution": _either_convolution,
    "aten.convolution_overrideable": _either_convolution,
    **{f"aten.conv{n}d": _convolution for n in (1, 2, 3)},
    "aten.conv_transpose1d": _transposed,
    "aten.conv_transpose2d": _transposed,
    "aten.conv_transpose3d": _transposed,
    "aten.linear": _linear,
    "aten.mm": _linear,
    "aten.bmm": _linear,
    "aten.mv": _linear,
    "aten.dot": _dot,
    "aten.addmm": _added_product,
    "aten.addmv": _added_product,
    "aten.baddbmm": _added_product,
    "aten.addbmm": _summed_products,
    **{f"aten.{kind}": _recurrent for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    "aten._cudnn_rnn": _recurrent_on_gpu,
    "aten.mkldnn_rnn_layer": _recurrent_on_cpu,
    **{f"quantized.{name}": _linear for name in _INT8_LINEAR},
    **{f"quantized.conv{n}d{then}": _int8_convolution for n in (1, 2, 3) for then in ("", "_relu")},
}
"""Multiply-adds, two FLOPs each: convolutions, dense and recurrent layers, int8 ones too."""


def _bias_of_third(args: Sequence[Any], out: Tensor) -> int:
    """One addition per element if there is a bias."""
    return out.numel() if len(args) > 2 and args[2] is not None else 0


def _every_element(args: Sequence[Any], out: Tensor) -> int:
    return out.numel()


def _nothing(args: Sequence[Any], out: Any) -> int:
    return 0


def _softmax(args: Sequence[Any], out: Tensor) -> int:
    """Shift 2, exponential 1, divide by the sum 2."""
    return 5 * out.numel()


def _profiled_attention(args: Sequence[Any], out: Any) -> int:
    """The softmax and the scaling of the queries; the products are einsums, which it misses."""
    query, key = args[:2]
    return int(5 * prod(query.shape[:-1]) * key.shape[-2] + query.numel())


def _pooling(axes: int) -> Formula:
    def window_per_output(args: Sequence[Any], out: Any) -> int:
        window = list(args[1]) if isinstance(args[1], Sequence) else [args[1]]
        outputs: Tensor = out if isinstance(out, Tensor) else out[0]
        return int(prod(window if len(window) == axes else window * axes)) * outputs.numel()

    return window_per_output


BIASES: Mapping[str, Formula] = {
    **{name: _bias_of_third for name in PRODUCTS if "conv" in name or name == "aten.linear"},
    "aten.addmm": _every_element,
}
"""One addition per element where a convolution or dense layer has a bias: `BiasAdd`."""

PROFILED: Mapping[str, Formula] = {
    "aten.mul": _every_element,
    "aten.mul_": _every_element,
    **{f"aten.max_pool{n}d": _pooling(n) for n in (1, 2, 3)},
    **{f"aten.max_pool{n}d_with_indices": _pooling(n) for n in (2, 3)},
    **{f"aten.avg_pool{n}d": _pooling(n) for n in (1, 2, 3)},
    **dict.fromkeys(("aten.softmax", "aten._softmax", "aten._safe_softmax"), _softmax),
    **dict.fromkeys(ATTENTION, _profiled_attention),
    "aten.einsum": _nothing,
}
"""Other operators that the TensorFlow profiler counts: multiplications, pooling, softmax.

It does not count batch norm, activations, additions of two maps, concatenation, global pooling and
einsum.
"""
