"""OpenVINO as an engine: it reads the same ONNX graphs, and computes in fp32 or bf16.

What it computes in is set, and read back from each compiled graph, since it would choose bf16 by
itself where the processor has it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import BundleError, PlanError
from offramp.runtime.engines.declared import DeclaredInput, check_values
from offramp.runtime.engines.engine import Graph, Stop, Stopped
from offramp.runtime.engines.libraries import openvino

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "i32": "int32", "i64": "int64"}
_DEVICE = "CPU"


class OpenVino:
    """OpenVINO on the CPU.

    Args:
        precision: "fp32" or "bf16".
        threads: CPU threads of one run.

    Raises:
        ExtraError: It is not installed.
        PlanError: The processor does not compute in this precision.
    """

    def __init__(self, precision: str, threads: int) -> None:
        library = openvino()
        self._core = library.Core()
        self.name = f"openvino {library.get_version().split('-')[0]}"
        self.precision, self.threads = precision, threads
        self._check_processor()
        self._graphs: list[_OvGraph] = []

    def load(self, content: bytes, what: str = "the graph") -> Graph:
        """Compile the graph; see `Engine.load`."""
        wanted = _PRECISIONS[self.precision]
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": wanted,
        }
        try:
            model = self._core.read_model(content, b"")
            compiled = self._core.compile_model(model, _DEVICE, settings)
        except Exception as error:  # of many kinds
            raise BundleError(
                f"{what} is not an ONNX graph that {self.name} can run ({_line(error)}). Export "
                "the bundle again, or update openvino."
            ) from error
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != wanted:
            raise PlanError(
                f"{self.name} was asked to compute {what} in {wanted} and computes in {found}. "
                "Choose the other precision."
            )
        graph = _OvGraph(compiled, what)
        self._graphs.append(graph)
        return graph

    def value(self, array: NDArray[Any]) -> Any:
        """See `Engine.value`."""
        return np.ascontiguousarray(array)

    def array(self, value: Any) -> NDArray[Any]:
        """See `Engine.array`."""
        array: NDArray[Any] = value
        return array

    def close(self) -> None:
        """See `Engine.close`."""
        while self._graphs:
            self._graphs.pop().close()

    def _check_processor(self) -> None:
        able = self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        if self.precision == "bf16" and "BF16" not in able:
            raise PlanError(
                "precision='bf16' needs a processor with bf16 instructions, which this one lacks. "
                "Use precision='fp32'."
            )


class _OvGraph:
    """A compiled graph with a pool of requests: each run takes one, so threads do not wait."""

    def __init__(self, compiled: Any, what: str) -> None:
        self._what = what
        self._declared = tuple(_declared(port) for port in compiled.inputs)
        self.inputs = tuple(entry.name for entry in self._declared)
        self.outputs = tuple(port.get_any_name() for port in compiled.outputs)
        self._compiled: Any = compiled
        self._free: SimpleQueue[Any] = SimpleQueue()

    def run(self, values: Sequence[Any], stop: Stop | None = None) -> tuple[Any, ...]:
        """See `Graph.run`."""
        check_values(self._what, self._declared, values)  # or a wrong shape would be compiled
        with self._request() as request:
            try:
                if stop is None:
                    return self._call(request, values)
                with stop.attached(request.cancel):
                    return self._call(request, values)
            except Stopped:
                raise
            except Exception as error:
                if stop is not None and stop.requested:
                    raise Stopped from error
                raise BundleError(
                    f"openvino failed to run {self._what} ({_line(error)}). Export the bundle "
                    "again, or update openvino."
                ) from error

    def close(self) -> None:
        """Let the graph go once the runs in flight have ended."""
        self._compiled, self._free = None, SimpleQueue()

    @contextmanager
    def _request(self) -> Iterator[Any]:
        if self._compiled is None:
            raise BundleError(f"{self._what} was closed. Open the engine and load it again.")
        try:
            request = self._free.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._free.put(request)

    def _call(self, request: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        """Run asynchronously, which is what can be cancelled; outputs are copied for the caller."""
        request.start_async(list(values), share_inputs=True)
        request.wait()
        places = range(len(self.outputs))
        return tuple(request.get_output_tensor(place).data.copy() for place in places)


def _declared(port: Any) -> DeclaredInput:
    shape = tuple(
        "any" if size.is_dynamic else int(size.get_length()) for size in port.get_partial_shape()
    )
    kind = port.get_element_type().get_type_name()
    return DeclaredInput(port.get_any_name(), shape, _DTYPES.get(kind, kind))


def _line(error: Exception) -> str:
    """What the library says, in one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
