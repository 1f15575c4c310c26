"""Sound files that some kind of data lists."""

from numpy import str_
from numpy.typing import NDArray

from offramp.data.chain import Chain
from offramp.data.listed import ListedFiles
from offramp.data.listing import Listing
from offramp.data.prepared import PreparedSource, SoundFiles
from offramp.data.samples import Source
from offramp.data.splits import Splits
from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.media import SOUNDS, Medium
from offramp.preprocess.sound import check_libraries
from offramp.progress import Progress, silent


class ListedSounds(ListedFiles):
    """How sound files are read, checked and divided.

    WAV, AU, FLAC, OGG and MP3 files are read, with the libraries of the extra `audio`. Channels
    are averaged, and a file of another sampling rate is resampled to that of the chain.

    Attributes:
        chain: Preprocessing of a sound: settings of a spectrogram, or `speech_commands`, `gtzan`
            or `vggish`.
    """

    chain: Chain

    @property
    def medium(self) -> Medium:
        """The files to read."""
        return SOUNDS

    @property
    def inputs(self) -> tuple[SpectrogramPreprocess]:
        """Preprocessing of a sound."""
        return (self.chain,)

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """See ListedFiles; also refused without the extra `audio`."""
        check_libraries()
        return super().load(progress, check=check)

    def as_source(self, listed: Listing, digests: NDArray[str_]) -> Source:
        """See ListedFiles."""
        sounds = SoundFiles(tuple(listed.paths[:, 0]), digests[:, 0], self.chain.rate)
        return PreparedSource([sounds], listed.targets, self.inputs)
