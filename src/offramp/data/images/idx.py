"""The IDX format of MNIST and Fashion-MNIST: big-endian header, then bytes; often gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError

_UBYTE = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read unsigned bytes of any number of axes from a plain or gzipped IDX file.

    Raises:
        DataError: The file is missing, cut short, or not IDX of unsigned bytes.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist. Point `root` at the folder that holds it."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Fetch the file again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UBYTE:
        raise DataError(f"{path} is not an IDX file of unsigned bytes. Fetch the file again.")
    axes = content[3]
    header = 4 + 4 * axes
    if len(content) < header:
        raise DataError(f"{path} ends inside its header. Fetch the file again.")
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} should hold {math.prod(shape):,} bytes for shape {shape}, but holds "
            f"{len(content) - header:,}. Fetch the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The gzipped IDX file of an array, the same bytes every time."""
    header = bytes([0, 0, _UBYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0)
