"""CIFAR's Python files: pickles of numbers, names and arrays, from which nothing else is loaded."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError

_LARGEST = 1 << 30  # bytes of the largest file
_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8"}
_ORDERS = ("|", "<", ">", "=")


class _Known:
    """What a pickle may ask for by name: it can be called as numpy does, and not changed."""

    __slots__ = ("_make", "_name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self._name, self._make = name, make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it changes {self._name}")


class _Type:
    """A numpy type of plain numbers, of which a pickle can set the byte order alone."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *rest: Any) -> None:
        if not isinstance(code, str) or code not in _NUMBERS or rest not in ((), (0, 1)):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        if order not in _ORDERS or state != (3, order, None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("it holds a type of numbers that numpy would not write")
        self._order = order

    def of(self, content: bytes) -> NDArray[Any]:
        """The numbers (N,) in bytes."""
        return np.frombuffer(content, np.dtype(self._order + self._code))


class _Array:
    """An array that is empty, as numpy's pickles begin with it, until its state fills it.

    Attributes:
        numbers: Its content; None until then.
    """

    __slots__ = ("numbers",)

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        if kind is not _NDARRAY or shape != (0,):
            raise pickle.UnpicklingError("it holds an array that numpy would not write")
        self.numbers: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        version, shape, kind, by_column, content = state
        if isinstance(content, str):  # Python 2 had one type for text and bytes
            content = content.encode("latin1")
        known = version == 1 and type(kind) is _Type and isinstance(content, bytes)
        if not known or not _is_shape(shape):
            raise pickle.UnpicklingError("it holds an array that numpy would not write")
        self.numbers = kind.of(content).reshape(shape, order="F" if by_column else "C")


def _is_shape(given: Any) -> bool:
    return isinstance(given, tuple) and all(type(size) is int and size >= 0 for size in given)


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes that Python 3 pickled for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds text in the encoding {encoding!r}")
    return text.encode("latin1")


def _uncalled(*given: Any) -> Any:
    """The class of arrays, which would make arrays of any size if called."""
    raise pickle.UnpicklingError("it holds an array that numpy would not write")


_NDARRAY = _Known("numpy.ndarray", _uncalled)
_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Known("numpy's _reconstruct", _Array),
    ("numpy._core.multiarray", "_reconstruct"): _Known("numpy's _reconstruct", _Array),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Known("numpy.dtype", _Type),
    ("_codecs", "encode"): _Known("codecs.encode", _encoded),
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what numpy arrays and bytes are made of."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_pickled(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle that holds plain values and, as values of it, arrays of numbers alone.

    Args:
        content: Content of the file.
        where: What messages call the file.

    Raises:
        DataError: It holds or asks for anything else, or is damaged.
    """
    if len(content) > _LARGEST:
        raise DataError(f"{where} is too large for a file of CIFAR. Fetch it again.")
    try:
        found = _Restricted(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{where} was not read: {error}, and a data file may hold only numbers, names and "
            "arrays, since anything else could run code. Fetch it from its authors again."
        ) from error
    except Exception as error:  # what a damaged pickle raises is open
        raise DataError(
            f"{where} cannot be read ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a {type(found).__name__}, not a dict. Fetch it again.")
    return {
        _text(key): value.numbers if isinstance(value, _Array) else value
        for key, value in found.items()
    }


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
