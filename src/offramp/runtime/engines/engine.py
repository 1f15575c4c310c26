"""What every inference engine offers, and how its running graphs are stopped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

from numpy.typing import NDArray


class Stopped(Exception):  # noqa: N818 - it reports a request, not a mistake
    """A run was cut short because it was asked to stop."""


class Stop:
    """Asks running graphs to stop, from another thread.

    It stays set: runs that begin after the request raise `Stopped` at once. One stop can serve
    several graphs, in turn or at the same time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._requested = False
        self._cancels: list[Callable[[], None]] = []

    def request(self) -> None:
        """Ask every run with this stop to end as soon as its engine can."""
        with self._lock:
            self._requested = True
            for cancel in self._cancels:
                cancel()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._requested

    @contextmanager
    def attached(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Have `cancel` called by a request that comes while the block runs.

        `cancel` is never called after the block has ended, so it may act on what the next run
        uses again.

        Raises:
            Stopped: The stop had been requested before.
        """
        with self._lock:
            if self._requested:
                raise Stopped
            self._cancels.append(cancel)
        try:
            yield
        finally:
            with self._lock:
                self._cancels.remove(cancel)


class Graph(Protocol):
    """One loaded ONNX graph, which several threads may run at the same time.

    Attributes:
        inputs: Names of the inputs, in the order of the file.
        outputs: Names of the outputs, in the order of the file.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, values: Sequence[Any], stop: Stop | None = None) -> tuple[Any, ...]:
        """Values in the order of `inputs` to values in the order of `outputs`.

        A request that comes too late to save anything is not noticed: the values are returned.

        Raises:
            Stopped: The stop was requested before the run, or cut it short.
            ShapeError: A value has a shape or type that the graph does not take.
            BundleError: The engine failed; the message quotes it.
        """
        ...


class Engine(Protocol):
    """A library that runs ONNX graphs, set up for one precision and number of threads.

    Attributes:
        name: The library with its version, and the processor it uses where that is not the CPU.
        precision: What it computes in, read back from the library: "fp32" or "bf16".
        threads: CPU threads of one run.
    """

    name: str
    precision: str
    threads: int

    def load(self, content: bytes, what: str = "the graph") -> Graph:
        """Load a graph from the bytes of an ONNX file.

        Args:
            content: The whole file.
            what: What errors call the graph, such as a file's name.

        Raises:
            BundleError: The bytes are not an ONNX graph that the engine can run.
        """
        ...

    def value(self, array: NDArray[Any]) -> Any:
        """An array as the engine's own tensor; it may share memory with the array."""
        ...

    def array(self, value: Any) -> NDArray[Any]:
        """A tensor of the engine as an array; it may share memory with the tensor."""
        ...

    def close(self) -> None:
        """Release all graphs. What runs at this moment still finishes; closing twice is allowed."""
        ...
