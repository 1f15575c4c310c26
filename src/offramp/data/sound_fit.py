"""SoundFit: how many sound files their chains resample, cut or pad."""

from collections import Counter
from collections.abc import Sequence

from offramp.errors import DataError
from offramp.preprocess import Preprocess, SpectrogramPreprocess
from offramp.preprocess.sound import sound_length


class SoundFit:
    """Counts of sound files by what their chain does to them, from their headers alone."""

    def __init__(self, inputs: Sequence[Preprocess]) -> None:
        """Give the preprocessing of each input; those of pictures are left alone."""
        self._chains = {
            number: each
            for number, each in enumerate(inputs)
            if isinstance(each, SpectrogramPreprocess)
        }
        self._counts = {number: Counter[str]() for number in self._chains}

    def add(self, contents: Sequence[bytes]) -> None:
        """Count the files of a sample, one for each input; one that cannot be read is left out."""
        for number, chain in self._chains.items():
            try:
                there, rate = sound_length(contents[number])
            except DataError:
                continue
            length = round(there * chain.rate / rate)
            self._counts[number] += Counter(
                files=1,
                resampled=rate != chain.rate,
                cut=length > chain.num_samples,
                padded=length < chain.num_samples,
            )

    def lines(self) -> list[str]:
        """For each chain that changes some files, a line that says how many."""
        texts = []
        for number, chain in self._chains.items():
            counts, seconds = self._counts[number], f"{chain.num_samples / chain.rate:.4g} s"
            done = {
                "resampled": f"resampled to {chain.rate:,} Hz",
                "cut": f"cut to {seconds}",
                "padded": f"padded to {seconds}",
            }
            found = [f"{counts[what]:,} {text}" for what, text in done.items() if counts[what]]
            if found:
                texts.append(f"{counts['files']:,} sound files, of these {', '.join(found)}")
        return texts
