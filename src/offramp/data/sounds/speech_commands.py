"""Speech Commands v0.02 with twelve classes, divided as TensorFlow Datasets divides it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from offramp.data.chain import Chain
from offramp.data.prepared import PreparedSource, SoundFiles
from offramp.data.published import check_sizes, is_stand_in, read_lines, with_calibration
from offramp.data.samples import Samples
from offramp.data.sounds.segments import SoundSegments
from offramp.data.splits import Splits, first_few, thinned
from offramp.errors import DataError
from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.media import visible_entries
from offramp.preprocess.sound import check_libraries, decode_sound
from offramp.preprocess.spectrogram import SPEECH_COMMANDS
from offramp.progress import Progress, silent
from offramp.spec import Spec

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
CLASSES = (*WORDS, "silence", "unknown")
NOISE = "_background_noise_"
VALIDATION_NOISE = "running_tap.wav"
"""The recording of noise that is cut up for validation; the others are cut up for training."""
_SILENCE, _UNKNOWN = "_silence_", "_unknown_"
_NAME_OF = {**{word: word for word in WORDS}, _SILENCE: "silence", _UNKNOWN: "unknown"}
MAIN, TEST = "speech_commands_v0.02", "speech_commands_test_set_v0.02"
"""Names of the two archives, and of the folders they are unpacked to."""
_SIZES = {"train": 85_511, "validation": 10_102, "test": 4_890}
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_STEP = 8_000  # between slices of noise, in samples at 16 kHz
_LENGTH = 16_000


@dataclass(frozen=True)
class _Clip:
    """A word, or a slice of a recording of noise.

    Attributes:
        path: Its file.
        split: train, validation or test.
        class_name: One of CLASSES.
        name: Its id.
        source: Who speaks, or the recording of noise.
        start: Where in the file it begins, in samples at 16 kHz.
    """

    path: Path
    split: str
    class_name: str
    name: str
    source: str
    start: int = 0


class SpeechCommands(Spec):
    """Speech Commands v0.02 (Warden 2018): one second of ten words, of other words, or of noise.

    As in TensorFlow Datasets and the paper, 85,511 clips train, 10,102 validate and 4,890 test.
    Words of `testing_list.txt` are left out, since tests come from an archive of their own. Silence
    is a slice of a second of the recordings of noise, every half second; those of running_tap.wav
    validate. Words that are shorter than a second are padded with zeros by the chain.

    Attributes:
        root: Folder with the folders `speech_commands_v0.02` and `speech_commands_test_set_v0.02`,
            to which the published archives of these names are unpacked.
        calibration: Number of training clips drawn for calibration; clips of one speaker stay
            together. The paper has none, and without them policies cannot be calibrated.
        split_seed: Seed of that draw.
        chain: What makes a clip the backbone's input.
        limit: Number of clips kept of each split, for a quick trial; each class keeps its share.
    """

    kind: Literal["speech_commands"] = "speech_commands"
    root: Path
    calibration: NonNegativeInt = 0
    split_seed: NonNegativeInt = 0
    chain: Chain = SPEECH_COMMANDS
    limit: PositiveInt | None = None

    @property
    def inputs(self) -> tuple[SpectrogramPreprocess]:
        """What makes a clip the backbone's input."""
        return (self.chain,)

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """List and hash every clip; clips are decoded whenever they are read.

        Args:
            progress: Called after each file.
            check: Decode every clip once now, see `Splits.check`.

        Raises:
            DataError: Files are missing, the data set is not complete, or a file cannot be read.
        """
        check_libraries()
        root = self.root.expanduser()
        main, test = (_folder(root, name) for name in (MAIN, TEST))
        clips = [*_words(main), *self._silence(main / NOISE), *_test_clips(test)]
        counts = {name: sum(clip.split == name for clip in clips) for name in _SIZES}
        check_sizes(root, counts, _SIZES)
        if empty := [name for name, count in counts.items() if not count]:
            raise DataError(
                f"{root} has no clips for {', '.join(empty)}. Unpack both archives again."
            )
        parts = self._divided(clips, self._samples(clips, progress), stand_in=is_stand_in(root))
        found = Splits.of(
            {name: thinned(part, self.limit) for name, part in parts.items()},
            target_names=CLASSES,
            inputs=self.inputs,
            origin=str(self.root),
            stand_in=is_stand_in(root),
        ).doubting_sources()
        if check:
            found.check(progress)
        return found

    def _silence(self, folder: Path) -> Iterator[_Clip]:
        """Slices of the recordings of noise, which need not end with a whole one."""
        if not folder.is_dir():
            raise DataError(f"{folder} is missing. Unpack {MAIN}.tar.gz again.")
        for path in visible_entries(folder):
            if path.suffix.lower() != ".wav":
                continue
            try:
                length = len(decode_sound(path.read_bytes(), _LENGTH))
            except (DataError, OSError) as error:
                raise DataError(f"{path} cannot be read: {error}. Unpack it again.") from error
            split = "validation" if path.name == VALIDATION_NOISE else "train"
            for start in range(0, length - _LENGTH, _STEP):
                name = f"{NOISE}/{path.name}/{start}"
                yield _Clip(path, split, "silence", name, f"{NOISE}/{path.stem}", start)

    def _samples(self, clips: Sequence[_Clip], progress: Progress) -> Samples:
        paths = [*dict.fromkeys(clip.path for clip in clips)]
        number = {path: place for place, path in enumerate(paths)}
        files = SoundFiles(paths, np.array(_digests(paths, progress)), self.chain.rate)
        rate = self.chain.rate
        segments = SoundSegments(
            files,
            np.array([number[clip.path] for clip in clips]),
            np.array([clip.start * rate // _LENGTH for clip in clips]),
            rate,
        )
        labels = np.array([CLASSES.index(clip.class_name) for clip in clips], np.int64)
        return Samples.of(
            PreparedSource([segments], labels, self.inputs),
            ids=[clip.name for clip in clips],
            clusters=[clip.source for clip in clips],
        )

    def _divided(
        self, clips: Sequence[_Clip], samples: Samples, *, stand_in: bool
    ) -> dict[str, Samples]:
        names = with_calibration(
            np.array([clip.split for clip in clips]),
            *(self.calibration, samples, self.split_seed),
            stand_in=stand_in,
        )
        return {str(name): samples.subset(np.flatnonzero(names == name)) for name in {*names}}


def _folder(root: Path, name: str) -> Path:
    """Where an archive of this name was unpacked."""
    places = [root / name, root / "SpeechCommands" / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        return found
    archive = root / f"{name}.tar.gz"
    done = f"mkdir {root / name} && tar -xzf {archive} -C {root / name}"
    fetch = "" if archive.is_file() else f"Fetch {archive.name} into that folder. "
    raise DataError(f"{root} has no folder {name}. {fetch}Unpack it: {done}.")


def _words(main: Path) -> Iterator[_Clip]:
    """The words that train and validate; what the lists name is in the other splits."""
    listed = {split: {*read_lines(main / name, f"{MAIN}.tar.gz")} for split, name in _LISTS.items()}
    for folder in visible_entries(main):
        if not folder.is_dir() or folder.name == NOISE:
            continue
        class_name = folder.name if folder.name in WORDS else "unknown"
        for path in _sounds(folder):
            name = f"{folder.name}/{path.name}"
            if name not in listed["test"]:
                split = "validation" if name in listed["validation"] else "train"
                yield _Clip(path, split, class_name, name, _speaker(path))


def _test_clips(folder: Path) -> Iterator[_Clip]:
    unknown = [each.name for each in visible_entries(folder) if each.is_dir()]
    if missing := [name for name in _NAME_OF if name not in unknown]:
        raise DataError(f"{folder} lacks {', '.join(missing)}. Unpack {TEST}.tar.gz again.")
    for name, class_name in _NAME_OF.items():
        for path in _sounds(folder / name):
            clip = f"test/{name}/{path.name}"
            source = _speaker(path) if class_name != "silence" else clip
            yield _Clip(path, "test", class_name, clip, source)


def _sounds(folder: Path) -> list[Path]:
    return [path for path in visible_entries(folder) if path.suffix.lower() == ".wav"]


def _speaker(path: Path) -> str:
    """Who speaks, which a name begins with: 0a7c2a8d_nohash_0.wav."""
    return path.stem.partition("_nohash_")[0]


def _digests(paths: Sequence[Path], progress: Progress) -> list[str]:
    digests, faults = [], []
    for number, path in enumerate(paths):
        progress("reading clips", number, len(paths))
        try:
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
    progress("reading clips", len(paths), len(paths))
    if faults:
        raise DataError(
            f"{len(faults)} of {len(paths)} clips cannot be read:\n{first_few(faults)}\nUnpack the "
            "archives again."
        )
    return digests
