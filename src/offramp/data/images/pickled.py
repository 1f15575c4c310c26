"""CIFAR's Python files: pickles of numbers, names and arrays, from which nothing else is loaded."""

import io
import pickle
from typing import Any

import numpy as np

from offramp.errors import DataError

_RECONSTRUCT: Any = np.zeros(0, np.uint8).__reduce__()[0]
_NDARRAY = object()  # stands for the class, which would make arrays of any size if called
_LARGEST = 1 << 30  # bytes of the largest array that a file may hold


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes that Python 3 pickled for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _dtype(name: Any, *rest: Any) -> "np.dtype[Any]":
    """A type of plain numbers."""
    found: np.dtype[Any] = np.dtype(name, *rest)
    if found.kind not in "uifb" or found.hasobject:
        raise pickle.UnpicklingError(f"an array of {found}")
    return found


def _empty_array(kind: Any, shape: tuple[int, ...], code: Any) -> Any:
    """The empty array that numpy's pickles begin with; its state gives shape and content."""
    if kind is not _NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that numpy would not write")
    return _RECONSTRUCT(np.ndarray, (0,), code)


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encoded,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what numpy arrays and bytes are made of."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_pickled(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle that holds plain values and arrays of numbers alone.

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
    return {_text(key): value for key, value in found.items()}


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
