"""Sound files in one folder per class."""

from typing import Literal

from numpy import str_
from numpy.typing import NDArray

from offramp.data.chain import Chain
from offramp.data.class_folders import ClassFolders
from offramp.data.layout import SOUNDS, Medium
from offramp.data.listing import Listing
from offramp.data.prepared import PreparedSource, SoundFiles
from offramp.data.samples import Source
from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.sound import check_libraries


class SoundFolder(ClassFolders):
    """Sound files as root/SPLIT/CLASS/name.wav, or root/CLASS/name.wav with `split`.

    WAV, AU, FLAC, OGG and MP3 files are read, with the libraries of the extra `audio`. Channels
    are averaged, and a file of another sampling rate is resampled to that of the chain.

    Attributes:
        chain: Preprocessing of a sound: settings of a spectrogram, or
            `speech_commands` or `vggish`.
    """

    kind: Literal["sound_folder"] = "sound_folder"
    chain: Chain

    @property
    def medium(self) -> Medium:
        """See ClassFolders."""
        return SOUNDS

    @property
    def inputs(self) -> tuple[SpectrogramPreprocess]:
        """Preprocessing of a sound."""
        return (self.chain,)

    def listing(self) -> Listing:
        """See ClassFolders."""
        check_libraries()
        return super().listing()

    def as_source(self, listed: Listing, digests: NDArray[str_]) -> Source:
        """See ListedFiles."""
        sounds = SoundFiles(tuple(listed.paths[:, 0]), digests[:, 0], self.chain.rate)
        return PreparedSource([sounds], listed.targets, self.inputs)
