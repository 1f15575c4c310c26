"""Heads: what files say about where people are, and density maps made of it."""

import io

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from offramp.errors import DataError

_SIDE, _SIGMA = 15, 4.0  # of the Gaussian that a head becomes (paper, section 4.1), in pixels
_VARIABLE = "map"


def read_map(content: bytes, size: tuple[int, int], *, text: bool) -> NDArray[np.float64]:
    """The numbers (H, W) that a file gives for the pixels of its picture, which sum to the count.

    Args:
        content: Content of a MATLAB file with the variable `map`, of dots or of a density; or of a
            text file with the `x y` of one dot a line, in pixels from the upper left corner.
        size: Height and width of the picture.
        text: Whether it is a text file.

    Raises:
        DataError: The content is of another form, or does not fit the picture.
    """
    return _dots(content, size) if text else _variable(content, size)


def density(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """The density map (H, W) of what `read_map` found, with the same sum.

    A map of whole numbers is one of dots; every head becomes a Gaussian. What a kernel would lose
    beyond the border is spread over the rest of it. Any other map is a density already.
    """
    if not np.array_equal(found, np.rint(found)):
        return found
    inside = _blurred(np.ones_like(found))  # the share of a head's kernel that is in the picture
    return _blurred(found / inside)


def resized(found: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """A density map at another size, with the same sum.

    Each pixel gives to each pixel of the result what its area shares with it.
    """
    rows, columns = _shares(found.shape[0], height), _shares(found.shape[1], width)
    made: NDArray[np.float64] = rows @ found @ columns.T
    return made


def _variable(content: bytes, size: tuple[int, int]) -> NDArray[np.float64]:
    try:
        found = scipy.io.loadmat(io.BytesIO(content), variable_names=[_VARIABLE]).get(_VARIABLE)
        names = [name for name, *_ in scipy.io.whosmat(io.BytesIO(content))]
    except NotImplementedError as error:
        raise DataError(
            "it is a MATLAB file of version 7.3, which is HDF5 and not read here. Save it again "
            "with MATLAB's -v7"
        ) from error
    except Exception as error:  # the reader raises many kinds
        raise DataError("its content is not a MATLAB file, or is damaged") from error
    if found is None:
        there = f"only {', '.join(names)}" if names else "no variable at all"
        raise DataError(f"it should have the variable `{_VARIABLE}`, and has {there}")
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "biuf":
        raise DataError(f"its variable `{_VARIABLE}` is not a matrix of real numbers")
    if found.shape != size:
        raise DataError(
            f"its map has {found.shape[0]} x {found.shape[1]} pixels, and its picture has "
            f"{size[0]} x {size[1]} (height x width)"
        )
    values = found.astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError(f"its variable `{_VARIABLE}` has values that are negative or not finite")
    return values


def _dots(content: bytes, size: tuple[int, int]) -> NDArray[np.float64]:
    height, width = size
    found = np.zeros(size)
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            x, y = map(float, line.split())
        except ValueError as error:
            raise DataError(f"line {number} is {line.strip()!r}, not two numbers x y") from error
        if not (0 <= x <= width and 0 <= y <= height):
            raise DataError(
                f"line {number}: the dot at x = {x:g}, y = {y:g} is outside its picture, which "
                f"is {width} pixels wide and {height} high"
            )
        found[min(int(y), height - 1), min(int(x), width - 1)] += 1
    return found


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Gaussian of sum 1 in place of each 1; what falls outside is lost."""
    places = np.arange(_SIDE) - _SIDE // 2
    kernel = np.exp(-(places**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    rows = convolve1d(values, kernel, axis=0, mode="constant")
    made: NDArray[np.float64] = convolve1d(rows, kernel, axis=1, mode="constant")
    return made


def _shares(there: int, wanted: int) -> NDArray[np.float64]:
    """Share (wanted, there) of each old cell that lies in each new one; columns sum to 1."""
    edges = np.arange(wanted + 1) * (there / wanted)
    cells = np.arange(there)
    starts = np.maximum(edges[:-1, None], cells)
    ends = np.minimum(edges[1:, None], cells + 1)
    overlap = np.maximum(0.0, ends - starts)
    shares: NDArray[np.float64] = overlap / overlap.sum(axis=0)
    return shares
