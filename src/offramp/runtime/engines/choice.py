"""The engines by name."""

from types import NoneType
from typing import Literal, get_args

from offramp.arguments import check_kind
from offramp.errors import PlanError
from offramp.runtime.engines.cores import usable_cores
from offramp.runtime.engines.engine import Engine
from offramp.runtime.engines.ort import OnnxRuntime
from offramp.runtime.engines.ov import OpenVino

EngineName = Literal["onnxruntime", "onnxruntime:cuda", "onnxruntime:coreml", "openvino"]
Precision = Literal["fp32", "bf16"]


def open_engine(
    name: str,
    precision: str = "fp32",
    threads: int | None = None,
    *,
    batch: int | None = None,
) -> Engine:
    """Start an engine.

    Args:
        name: "onnxruntime", "onnxruntime:cuda", "onnxruntime:coreml" or "openvino".
        precision: "fp32" or "bf16"; refused where the engine or the processor lacks it.
        threads: CPU threads of one run; None: one for each core that the process may use.
        batch: Fix the batch size of every graph; None: any size.

    Raises:
        PlanError: The name, the precision or the number of threads does not exist here.
        ExtraError: The library is not installed.
    """
    _check(name, precision, threads)
    threads = usable_cores() if threads is None else threads
    if name == "openvino":
        return OpenVino(precision, threads)
    _, _, device = name.partition(":")
    return OnnxRuntime(device or "cpu", precision, threads, batch=batch)


def _check(name: str, precision: str, threads: int | None) -> None:
    check_kind(name, str, "engine", "Give a name such as 'onnxruntime'.")
    check_kind(precision, str, "precision", "Give 'fp32' or 'bf16'.")
    check_kind(threads, (int, NoneType), "threads", "Give a whole number, or None.")
    if name not in get_args(EngineName):
        raise PlanError(f"engine={name!r} is not one of: {', '.join(get_args(EngineName))}.")
    if precision not in get_args(Precision):
        raise PlanError(f"precision={precision!r} is not one of: {', '.join(get_args(Precision))}.")
    if threads is not None and threads < 1:
        raise PlanError(f"threads={threads} is not a number of threads. Use 1 or more, or None.")
