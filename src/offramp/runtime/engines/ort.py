"""ONNX Runtime as an engine: one session per graph, one memory arena for all of them.

Three choices were measured (ONNX Runtime 1.32, two cores; docs/design.md has the figures). Idle
threads do not spin, since the pools of several sessions would take each other's cores. Tensors are
numpy arrays: the library reads and returns them without a copy, and in less time per call than its
own values or IO binding need. Sessions are called below their Python wrapper, which costs as much
as the rest of the call and keeps a copy of the file.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import BundleError, PlanError
from offramp.runtime.engines.declared import DeclaredInput, check_values
from offramp.runtime.engines.engine import Graph, Stop, Stopped
from offramp.runtime.engines.libraries import onnx_runtime

_QUIET = 4  # only fatal messages: errors are raised with the same text
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # Both would compute in less than fp32 by themselves: TF32, and fp16 on the Neural Engine.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": 0}),
    "coreml": (
        "CoreMLExecutionProvider",
        {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
    ),
}


class OnnxRuntime:
    """ONNX Runtime on the CPU, a CUDA device or through CoreML. It computes in fp32.

    Args:
        device: "cpu", "cuda" or "coreml".
        precision: Only "fp32".
        threads: CPU threads of one run.
        batch: Fix the dimension named "batch" to this size: CoreML runs only graphs of fixed
            shapes on its own processors.

    Raises:
        PlanError: The installed library has no such device, or the precision is another.
    """

    precision = "fp32"

    def __init__(
        self, device: str, precision: str, threads: int, *, batch: int | None = None
    ) -> None:
        self._library = onnx_runtime()
        _check(self._library, device, precision)
        self.threads = threads
        self.name = f"onnxruntime {self._library.__version__}"
        self.name += "" if device == "cpu" else f" ({_PROVIDERS[device][0]})"
        self._device = device
        self._batch = batch
        self._graphs: list[_OrtGraph] = []

    def load(self, content: bytes, what: str = "the graph") -> Graph:
        """Start a session for the graph; see `Engine.load`."""
        session = self._session(content, what)
        graph = (_BoundGraph if self._device == "cuda" else _OrtGraph)(self._library, session, what)
        self._graphs.append(graph)
        return graph

    def _session(self, content: bytes, what: str) -> Any:
        wanted, settings = _PROVIDERS[self._device]
        try:
            session = self._library.InferenceSession(
                content, self._options(), providers=[(wanted, settings)], enable_fallback=False
            )
        except Exception as error:
            raise BundleError(
                f"{what} is not an ONNX graph that {self.name} can run ({_line(error)}). Export "
                "the bundle again, or update onnxruntime."
            ) from error
        if session.get_providers()[0] != wanted:
            raise PlanError(
                f"{self.name} could not start {wanted} and would run on the CPU. Check its "
                "drivers and libraries, or choose engine='onnxruntime'."
            )
        return session

    def _options(self) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        if self._batch is not None:
            options.add_free_dimension_override_by_name("batch", self._batch)
        return options

    def value(self, array: NDArray[Any]) -> Any:
        """See `Engine.value`."""
        array = np.ascontiguousarray(array)
        if self._device == "cuda":
            return self._library.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
        return array

    def array(self, value: Any) -> NDArray[Any]:
        """See `Engine.array`."""
        array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
        return array

    def close(self) -> None:
        """See `Engine.close`."""
        while self._graphs:
            self._graphs.pop().close()


def _check(library: Any, device: str, precision: str) -> None:
    if precision != "fp32":
        raise PlanError(
            f"precision={precision!r}: ONNX Runtime computes these graphs in fp32 only. Use "
            "precision='fp32', or engine='openvino', which has bf16 on processors that support it."
        )
    available = library.get_available_providers()
    if _PROVIDERS[device][0] not in available:
        here = [name for name, (provider, _) in _PROVIDERS.items() if provider in available]
        raise PlanError(
            f"the installed onnxruntime {library.__version__} has no {_PROVIDERS[device][0]}; it "
            f"runs on: {', '.join(here)}. Install a build that has it (for CUDA: pip install "
            "onnxruntime-gpu), or choose engine='onnxruntime'."
        )


@cache
def _share_arena() -> None:
    """Give the process one arena that all sessions draw from, once."""
    library = onnx_runtime()
    kind, memory = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR, library.OrtMemType.DEFAULT
    place = library.OrtMemoryInfo("Cpu", kind, 0, memory)
    library.create_and_register_allocator(place, library.OrtArenaCfg({}))


class _OrtGraph:
    """A session whose tensors are numpy arrays."""

    def __init__(self, library: Any, session: Any, what: str) -> None:
        self._library = library
        self._what = what
        self._declared = tuple(_declared(entry) for entry in session.get_inputs())
        self.inputs = tuple(entry.name for entry in self._declared)
        self.outputs = tuple(entry.name for entry in session.get_outputs())
        self._names = list(self.outputs)
        self._unstopped = self._run_options()
        self._session: Any = self._kept(session)

    def run(self, values: Sequence[Any], stop: Stop | None = None) -> tuple[Any, ...]:
        """See `Graph.run`."""
        session = self._opened()
        try:
            if stop is None:
                return self._call(session, values, self._unstopped)
            return self._call_until(session, values, stop)
        except Stopped:
            raise
        except Exception as error:
            if stop is not None and stop.requested:
                raise Stopped from error
            check_values(self._what, self._declared, self._arrays(values))
            raise BundleError(
                f"onnxruntime failed to run {self._what} ({_line(error)}). Export the bundle "
                "again, or update onnxruntime."
            ) from error

    def close(self) -> None:
        """Let the session go once the runs in flight have ended."""
        self._session = None

    def _opened(self) -> Any:
        if self._session is None:
            raise BundleError(f"{self._what} was closed. Open the engine and load it again.")
        return self._session

    def _call_until(self, session: Any, values: Sequence[Any], stop: Stop) -> tuple[Any, ...]:
        """Run with options of its own: they are read between nodes, and a set flag stays set."""
        options = self._run_options()
        with stop.attached(_terminate(options)):
            return self._call(session, values, options)

    def _call(self, session: Any, values: Sequence[Any], options: Any) -> tuple[Any, ...]:
        feed = dict(zip(self.inputs, values, strict=True))
        return tuple(session.run(self._names, feed, options))

    def _arrays(self, values: Sequence[Any]) -> list[NDArray[Any]]:
        return [np.asarray(value) for value in values]

    def _kept(self, session: Any) -> Any:
        """The part of a session that runs; the wrapper around it keeps the file's bytes."""
        return getattr(session, "_sess", session)

    def _run_options(self) -> Any:
        options = self._library.RunOptions()
        options.log_severity_level = _QUIET
        return options


class _BoundGraph(_OrtGraph):
    """A session whose tensors stay on a device between graphs."""

    _place = "cuda"

    def _kept(self, session: Any) -> Any:
        return session

    def _arrays(self, values: Sequence[Any]) -> list[NDArray[Any]]:
        return [value.numpy() for value in values]

    def _call(self, session: Any, values: Sequence[Any], options: Any) -> tuple[Any, ...]:
        binding = session.io_binding()
        for name, value in zip(self.inputs, values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, self._place, 0)
        session.run_with_iobinding(binding, options)
        return tuple(binding.get_outputs())


def _terminate(options: Any) -> Callable[[], None]:
    def terminate() -> None:
        options.terminate = True

    return terminate


def _declared(entry: Any) -> DeclaredInput:
    shape = tuple(size if isinstance(size, int) else str(size) for size in entry.shape)
    return DeclaredInput(entry.name, shape, _DTYPES.get(entry.type, entry.type))


def _line(error: Exception) -> str:
    """What the library says, in one line and without the code in front."""
    return " ".join(str(error).rpartition("] : ")[2].split())
