"""Image files in one folder per class, each alone or with a sound file beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offramp.data.class_folders import ClassFolders
from offramp.data.images.files import SoundedPictureFiles
from offramp.data.splits import first_few
from offramp.errors import DataError
from offramp.preprocess.media import IMAGES, SOUNDS, Medium, sounds_beside


class ImageFolder(SoundedPictureFiles, ClassFolders):
    """Image files as root/SPLIT/CLASS/name.jpg, or root/CLASS/name.jpg with `split`.

    JPEG, PNG, BMP, WebP and TIFF files are read. With `sound`, each has a sound file of the same
    name beside it, such as name.wav, which becomes the second input.
    """

    kind: Literal["image_folder"] = "image_folder"

    @property
    def medium(self) -> Medium:
        """See ClassFolders."""
        return IMAGES if self.sound is None else replace(IMAGES, beside=SOUNDS.endings)

    def paths_of(self, files: Sequence[Path]) -> NDArray[np.object_]:
        """See ClassFolders."""
        if self.sound is None:
            return super().paths_of(files)
        pairs, faults = [], []
        for file in files:
            there = sounds_beside(file)
            pairs.append((file, there[0] if there else None))
            if len(there) != 1:
                beside = " and ".join(path.name for path in there) or "no sound file"
                faults.append(f"{file.relative_to(self.root.expanduser())}: {beside} beside it")
        if faults:
            raise DataError(
                f"{len(faults)} of {len(files)} pictures in {self.root} do not have one sound "
                f"each:\n{first_few(faults)}\nPut one sound file of the same name beside each "
                f"({', '.join(SOUNDS.endings)})."
            )
        return np.array(pairs, object)
