"""SoundSegments: pieces of sound files, decoded when they are read."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp.data.prepared import SoundFiles


@dataclass(frozen=True, eq=False)
class SoundSegments:
    """N pieces of sounds, all of one length unless a sound ends before.

    Attributes:
        files: The whole sounds.
        numbers: (N,) file of each piece.
        starts: (N,) where in its file each piece begins, in samples.
        length: Largest length of a piece, in samples.
    """

    in_files: ClassVar[bool] = True

    files: SoundFiles
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        start = int(self.starts[index])
        return self.files[int(self.numbers[index])][start : start + self.length]

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each piece: of its file's and where in it the piece lies."""
        texts = [
            f"{self.files.digests[number]} {start}-{start + self.length}"
            for number, start in zip(self.numbers.tolist(), self.starts.tolist(), strict=True)
        ]
        return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], np.str_)
