"""Picture files that some kind of data lists, alone or each with a sound."""

import numpy as np
from numpy.typing import NDArray

from offramp.data.chain import Chain
from offramp.data.images.pictures import ImageFiles, PictureSource
from offramp.data.images.settings import PictureSettings
from offramp.data.listed import ListedFiles
from offramp.data.listing import Listing
from offramp.data.prepared import PreparedSource, SoundFiles
from offramp.data.samples import Source
from offramp.preprocess import Preprocess


class PictureFiles(PictureSettings, ListedFiles):
    """How picture files are read, checked and divided."""

    def as_source(self, listed: Listing, digests: NDArray[np.str_]) -> Source:
        """See ListedFiles."""
        return PictureSource(self._pictures(listed, digests), listed.targets, self.preprocess)

    def _pictures(self, listed: Listing, digests: NDArray[np.str_]) -> ImageFiles:
        return ImageFiles(tuple(listed.paths[:, 0]), digests[:, 0], self.exif)


class SoundedPictureFiles(PictureFiles):
    """How picture files are read, checked and divided, and the sounds that belong to them.

    Attributes:
        sound: The chain that makes the second input of a sound, for pictures that have one each;
            None if there are only pictures.
    """

    sound: Chain | None = None

    @property
    def inputs(self) -> tuple[Preprocess, ...]:
        """Preprocessing of each input of the backbone: picture, and sound if there is one."""
        return (self.preprocess,) if self.sound is None else (self.preprocess, self.sound)

    def as_source(self, listed: Listing, digests: NDArray[np.str_]) -> Source:
        """See ListedFiles."""
        if self.sound is None:
            return super().as_source(listed, digests)
        pictures = self._pictures(listed, digests)
        sounds = SoundFiles(tuple(listed.paths[:, 1]), digests[:, 1], self.sound.rate)
        return PreparedSource([pictures, sounds], listed.targets, self.inputs)
