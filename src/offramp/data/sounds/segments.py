"""SoundSegments: equal pieces of sound files, decoded when they are read."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp.data.prepared import SoundFiles


@dataclass(frozen=True, eq=False)
class SoundSegments:
    """Pieces of sounds: those of the first file in order, then those of the second, and so on.

    Attributes:
        files: The whole sounds.
        count: Number of pieces of each, from its start.
        length: Of a piece, in samples. The last one may be shorter, where the sound ends.
    """

    in_files: ClassVar[bool] = True

    files: SoundFiles
    count: int
    length: int

    def __len__(self) -> int:
        return len(self.files) * self.count

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        file, place = divmod(index, self.count)
        return self.files[file][place * self.length : (place + 1) * self.length]

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each piece: of its file's and where in it the piece lies."""
        places = [f"{n * self.length}-{(n + 1) * self.length}" for n in range(self.count)]
        texts = [f"{digest} {place}" for digest in self.files.digests for place in places]
        return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], np.str_)
