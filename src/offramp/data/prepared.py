"""Prepared samples: raw pictures and sounds, preprocessed when they are read."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.data.samples import Batch, Source
from offramp.errors import DataError, ExtraError, ShapeError
from offramp.preprocess import Preprocess, decode_sound

T = TypeVar("T")


class Raw(Protocol):
    """Raw pictures or sounds by number, each still the one whose digest was taken.

    Item i is what the preprocessing of the input takes.
    """

    @property
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each one's raw content."""

    @property
    def in_files(self) -> bool:
        """Whether they are decoded from files when they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Files:
    """Files that are read each time, and must stay as they were.

    Attributes:
        paths: (N,)
        digests: (N,) SHA-256 of each file when it was listed.
    """

    in_files: ClassVar[bool] = True

    paths: Sequence[Path]
    digests: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.paths)

    def decoded(self, index: int, decode: Callable[[bytes], T]) -> T:
        """What `decode` makes of the content of one file.

        Raises:
            DataError: The file cannot be read or decoded, or has changed.
            ExtraError: The library that decodes it is not installed.
        """
        path = self.paths[index]
        try:
            content = path.read_bytes()
            same = hashlib.sha256(content).hexdigest() == self.digests[index]
            if same:
                return decode(content)
        except ExtraError:
            raise
        except Exception as error:  # decoders raise many kinds
            raise DataError(
                f"{path} cannot be read: {error}. Repair or remove it, or leave it out with "
                "`on_corrupt: skip` if this kind of data has that setting."
            ) from error
        raise DataError(
            f"{path} has changed since its folder was loaded, so features of the new file would "
            "be stored as those of the old one. Do not change files while they are in use, and "
            "start again."
        )


@dataclass(frozen=True, eq=False)
class SoundFiles(Files):
    """Sounds that are read from their files each time.

    Attributes:
        rate: Samples per second to decode to.
    """

    rate: int

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.decoded(index, lambda content: decode_sound(content, self.rate))


class PreparedSource(Source):
    """Samples with one or several raw inputs and a target each, prepared when they are read."""

    threadsafe = True
    finite = True  # made from bytes or decoded sounds; bounds of the preprocessing keep them so

    def __init__(
        self, raw: Sequence[Raw], targets: NDArray[Any], inputs: Sequence[Preprocess]
    ) -> None:
        """Give raw inputs (N each), targets (N,) and what prepares each input."""
        for each in raw:
            if len(each) != len(targets):
                raise ShapeError(
                    f"{len(each)} pictures or sounds come with {len(targets)} labels. Give one "
                    "label for each."
                )
        self.raw, self.inputs, self._targets = tuple(raw), tuple(inputs), targets
        self.may_fail = any(each.in_files for each in raw)

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source."""
        pairs = zip(self.raw, self.inputs, strict=True)
        values = [prepare.batch([raw[int(row)] for row in rows]) for raw, prepare in pairs]
        tensors = tuple(map(torch.from_numpy, values))
        return Batch(tensors, torch.from_numpy(self._targets[rows]), rows)

    @property
    def targets(self) -> NDArray[Any]:
        """See Source."""
        return self._targets

    @property
    def digests(self) -> NDArray[np.str_]:
        """See Source."""
        return joined_digests([each.digests for each in self.raw])

    @property
    def settings(self) -> str:
        """See Source."""  # Defaults are left out, so that a new one moves no key.
        return "\n".join(each.model_dump_json(exclude_defaults=True) for each in self.inputs)

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return tuple(each.shape for each in self.inputs)


def joined_digests(columns: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """One digest (N,) from several (N,) of the same sample; a single one is returned as it is."""
    if len(columns) == 1:
        return columns[0]
    texts = [" ".join(row) for row in zip(*columns, strict=True)]
    return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], np.str_)
