"""Image files that a CSV file lists with their labels, each alone or with a sound."""

from typing import Literal

from offramp.data.images.files import SoundedPictureFiles
from offramp.data.table import FileTable
from offramp.preprocess.media import IMAGES, Medium


class ImageTable(SoundedPictureFiles, FileTable):
    """Image files listed in a CSV or TSV file.

    Attributes:
        sound_path: Column of the path of a picture's sound, if `sound` gives their chain.
    """

    kind: Literal["csv"] = "csv"
    sound_path: str = "sound"

    @property
    def medium(self) -> Medium:
        """See FileTable."""
        return IMAGES

    @property
    def path_settings(self) -> tuple[str, ...]:
        """See FileTable."""
        return ("path",) if self.sound is None else ("path", "sound_path")
