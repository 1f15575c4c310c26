"""Named arrays in one `.npz` file: written whole or not at all, read without pickle.

The same arrays give the same bytes, so that two runs can be compared file by file.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.arguments import as_path
from offramp.errors import BundleError, ShapeError
from offramp.storage.atomic import write_bytes

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can state
_SCHEMA = "schema"
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,  # the header of an array; also text that is not UTF-8
    KeyError,
    IndexError,
    NotImplementedError,  # a damaged field that asks for another compression
    RuntimeError,  # a damaged field that asks for a password
    OverflowError,
    MemoryError,
)


def write_arrays(path: Path | str, schema: str, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays under their names, uncompressed, with a schema.

    Raises:
        BundleError: The file cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in {_SCHEMA: schema, **arrays}.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _LONG_AGO)
            entry.create_system = 3  # or the bytes would depend on the operating system
            archive.writestr(entry, _as_npy(np.asarray(values)))
    write_bytes(as_path(path, "path"), buffer.getvalue())


def read_arrays(
    source: Path | str | bytes,
    schema: str,
    required: Collection[str],
    optional: Collection[str] = (),
) -> dict[str, NDArray[np.generic]]:
    """Read the arrays that `write_arrays` wrote; optional ones may be missing.

    Args:
        source: A file, or the bytes of one.
        schema: Schema that the file must state.
        required: Names of arrays that must be there.
        optional: Names of arrays that may be there.

    Raises:
        BundleError: The file is missing or damaged, or holds something else.
    """
    if not isinstance(source, bytes):
        source = as_path(source, "path")
    path = _name(source)
    arrays = _read_members(source)
    if _SCHEMA not in arrays or str(arrays.pop(_SCHEMA)) != schema:
        raise BundleError(
            f"{path} does not hold {schema}. Name a file of that kind that offramp wrote."
        )
    missing = sorted(set(required) - set(arrays))
    unknown = sorted(set(arrays) - set(required) - set(optional))
    if missing or unknown:
        raise BundleError(
            f"{path} holds {schema}, but lacks {missing} and has unknown {unknown}: "
            "another version of offramp wrote it. Write it again with this one."
        )
    return arrays


@dataclass(frozen=True, eq=False)
class Archived:
    """A dataclass of arrays that is stored in one `.npz` file.

    It needs a field `task`; a field `source` is stored as JSON.

    Attributes:
        schema: Schema that the file states.
    """

    schema: ClassVar[str]

    def save(self, path: Path | str) -> None:
        """Write one `.npz` file without pickle; the same values give the same bytes.

        Raises:
            BundleError: The file cannot be written.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if given["source"] is not None:
            given["source"] = json.dumps(given["source"], sort_keys=True)
        arrays = {name: item for name, item in given.items() if item is not None}
        write_arrays(path, self.schema, arrays)

    @classmethod
    def load(cls, source: Path | str | bytes) -> Self:
        """Read what `save` wrote, from a file or from its bytes.

        Raises:
            BundleError: No such file, a damaged one, or one that holds something else.
        """
        optional = [field.name for field in fields(cls) if field.default is None]
        required = [field.name for field in fields(cls) if field.default is not None]
        given: dict[str, Any] = dict(read_arrays(source, cls.schema, required, optional))
        try:
            given["task"] = str(given["task"])
            if "source" in given:
                given["source"] = json.loads(str(given["source"]))
            return cls(**given)
        except (ShapeError, ValueError, TypeError) as error:
            raise BundleError(
                f"{_name(source)} holds values that disagree: {error} Write it again."
            ) from error


def _as_npy(values: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values, order="C"), allow_pickle=False)
    return file.getvalue()


def _name(source: Path | str | bytes) -> str:
    """Name of a source in errors."""
    return str(source) if isinstance(source, str | Path) else "the file"


def _read_members(source: Path | str | bytes) -> dict[str, NDArray[np.generic]]:
    path = _name(source)
    try:
        with zipfile.ZipFile(
            io.BytesIO(source) if isinstance(source, bytes) else source
        ) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            # Bytes first, so that their checksum is compared before a header in them is used.
            return {name[:-4]: _from_npy(archive.read(name)) for name in names}
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror or error}. Check the path."
        ) from error
    except _UNREADABLE as error:
        raise BundleError(
            f"{path} is damaged or not an .npz file ({error}). Restore it, or write it again."
        ) from error


def _from_npy(content: bytes) -> NDArray[np.generic]:
    file = io.BytesIO(content)
    values: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("bytes after the end of an array")
    return values
