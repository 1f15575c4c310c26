"""GTZAN, music by genre, with the paper's split by segment and the published one by track."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt, model_validator

from offramp.data.chain import Chain
from offramp.data.prepared import PreparedSource, SoundFiles
from offramp.data.published import check_sizes, held_out, is_stand_in, with_calibration
from offramp.data.samples import Samples
from offramp.data.sounds.segments import SoundSegments
from offramp.data.splits import Splits, first_few, thinned
from offramp.doubts import warn_of
from offramp.errors import DataError
from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.media import SOUNDS, visible_entries
from offramp.preprocess.sound import check_libraries, decode_sound
from offramp.preprocess.spectrogram import GTZAN
from offramp.progress import Progress, silent
from offramp.spec import Spec
from offramp.table import counted

GENRES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip
_PER_GENRE = 100
_PLACES = ("genres", "genres_original", "Data/genres_original", ".")
_BROKEN = "jazz.00054"
"""A clip that is damaged in a mirror that many use, and missing from copies of it."""
_LISTS = Path(__file__).parents[1] / "gtzan" / "splits.json"
_HELD_OUT = 1000
_BY_SEGMENT = (
    "Sources are tracks here, and the split is drawn by segment, as in the paper. A network can "
    "recognise the recording instead of the genre, so accuracies are higher than on new music. "
    "`split_by: track` uses the published split by track, in which none are shared."
)


class Gtzan(Spec):
    """GTZAN (Tzanetakis and Cook 2002): 1,000 clips of 30 s of music in ten genres.

    Each clip is cut into segments, which are the samples; its track is the cluster of all of them.

    Attributes:
        root: Folder with `genres` or `genres_original`, or with the folders of the genres.
        split_by: "segment" draws segments, as the paper does (8,000, 1,000 and 1,000), so that
            nearly every test segment has others of its track in training. "track" is the published
            fault-filtered split of 443, 197 and 290 tracks, which leaves 70 tracks out.
        validation: Number of segments drawn for validation; None is 1,000. The split by track has
            its own.
        test: Number of segments drawn for testing, as `validation`.
        calibration: Number of segments drawn for calibration; by track, whole tracks of the
            published training part. The paper has none, and without them policies cannot be
            calibrated.
        split_seed: Of the draw, which is balanced over the genres; the paper gives none.
        segments: Number of segments from the start of each clip, of `num_samples` of the chain
            each. The last one may end with the clip, and is then padded.
        chain: What makes a segment the backbone's input.
        on_corrupt: "raise" refuses clips that cannot be read, except jazz.00054, which is damaged
            in a mirror that many use; "skip" leaves all of them out. Either way a warning names
            what is left out.
        limit: Number of segments kept of each split, for a quick trial; each genre keeps its share.
    """

    kind: Literal["gtzan"] = "gtzan"
    root: Path
    split_by: Literal["segment", "track"] = "segment"
    validation: PositiveInt | None = None
    test: PositiveInt | None = None
    calibration: NonNegativeInt = 0
    split_seed: NonNegativeInt = 0
    segments: PositiveInt = 10
    chain: Chain = GTZAN
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    @model_validator(mode="after")
    def _published_sizes(self) -> Self:
        given = [name for name in ("validation", "test") if getattr(self, name) is not None]
        if self.split_by == "track" and given:
            raise ValueError(
                f"{' and '.join(given)} cannot be set with `split_by: track`, which uses a "
                "published split. Leave out what you set, or use `split_by: segment`"
            )
        return self

    @property
    def inputs(self) -> tuple[SpectrogramPreprocess]:
        """What makes a segment the backbone's input."""
        return (self.chain,)

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """Hash and decode every clip once, which checks the files in any case.

        Raises:
            DataError: A genre or a clip is missing, a clip cannot be read or is too short (unless
                skipped), or nothing is left of a split.
        """
        check_libraries()
        root = self.root.expanduser()
        stand_in = is_stand_in(root)
        paths = _listed(root)
        digests, faults = self._read(paths, progress)
        if _BROKEN not in paths and not stand_in:
            faults[_BROKEN] = "its file is missing"
        if self.on_corrupt == "raise":
            _refuse({track: each for track, each in faults.items() if track != _BROKEN}, root)
        samples = self._samples({track: paths[track] for track in digests}, [*digests.values()])
        parts = self._divided(samples, stand_in=stand_in)
        doubts = _left_out(faults, parts)
        warn_of(doubts)
        found = Splits.of(
            {name: thinned(part, self.limit) for name, part in parts.items()},
            target_names=GENRES,
            inputs=self.inputs,
            origin=str(self.root),
            skipped=tuple(f"{track}: {fault}" for track, fault in faults.items()),
            stand_in=stand_in,
            doubts=doubts,
        )
        return found.doubting_sources(remark=_BY_SEGMENT)

    def _read(
        self, paths: Mapping[str, Path], progress: Progress
    ) -> tuple[dict[str, str], dict[str, str]]:
        """SHA-256 of each clip that is good, and what is wrong with each other, by track."""
        digests, faults = {}, {}
        for number, (track, path) in enumerate(paths.items()):
            progress("reading clips", number, len(paths))
            try:
                content = path.read_bytes()
                self._check_length(decode_sound(content, self.chain.rate))
                digests[track] = hashlib.sha256(content).hexdigest()
            except (DataError, OSError) as error:
                faults[track] = str(error)
        progress("reading clips", len(paths), len(paths))
        return digests, faults

    def _check_length(self, sound: NDArray[np.float32]) -> None:
        rate, before_last = self.chain.rate, (self.segments - 1) * self.chain.num_samples
        if len(sound) <= before_last:
            raise DataError(
                f"it is {len(sound) / rate:.3g} s long, and {self.segments} segments of "
                f"{self.chain.num_samples / rate:.3g} s need more than {before_last / rate:.3g} s"
            )

    def _samples(self, paths: Mapping[str, Path], digests: Sequence[str]) -> Samples:
        """All segments, in the order of the tracks."""
        files = SoundFiles([*paths.values()], np.array(digests, np.str_), self.chain.rate)
        places = np.arange(self.segments) * self.chain.num_samples
        segments = SoundSegments(
            files,
            np.repeat(np.arange(len(files)), self.segments),
            np.tile(places, len(files)),
            self.chain.num_samples,
        )
        tracks = np.repeat(np.array([*paths], np.str_), self.segments)
        labels = [GENRES.index(track.split(".")[0]) for track in tracks.tolist()]
        return Samples.of(
            PreparedSource([segments], np.array(labels, np.int64), self.inputs),
            ids=[f"{track}/{row % self.segments}" for row, track in enumerate(tracks)],
            clusters=tracks,
        )

    def _divided(self, samples: Samples, *, stand_in: bool) -> dict[str, Samples]:
        """The samples of each split."""
        draw = self._by_track if self.split_by == "track" else self._by_segment
        names = draw(samples, stand_in)
        wanted = ("train", "validation", *["calibration"] * (self.calibration > 0), "test")
        found = {name: np.flatnonzero(names == name) for name in wanted}
        if empty := [name for name, rows in found.items() if not len(rows)]:
            raise DataError(
                f"{', '.join(empty)} would be empty: of the tracks in {self.root} that can be "
                "read, none is in this part of the published split. Add its tracks, or use "
                "split_by: segment."
            )
        return {name: samples.subset(rows) for name, rows in found.items()}

    def _by_segment(self, samples: Samples, stand_in: bool) -> NDArray[np.str_]:
        counts = {
            "validation": self.validation or _HELD_OUT,
            "calibration": self.calibration,
            "test": self.test or _HELD_OUT,
        }
        facts = samples.digests, samples.targets, self.split_seed
        return held_out(counts, *facts, stand_in=stand_in)

    def _by_track(self, samples: Samples, stand_in: bool) -> NDArray[np.str_]:
        of_track, tracks = published_split(), np.asarray(samples.clusters)
        names = np.array([of_track.get(track, "") for track in tracks.tolist()])
        return with_calibration(
            names, self.calibration, samples, self.split_seed, stand_in=stand_in
        )


def published_split() -> dict[str, str]:
    """The part of each track, such as blues.00029, in the published fault-filtered split."""
    lists = json.loads(_LISTS.read_text(encoding="utf-8"))
    return {
        f"{genre}.{number:05d}": part
        for part in ("train", "validation", "test")
        for genre, numbers in lists[part].items()
        for number in numbers
    }


def _listed(root: Path) -> dict[str, Path]:
    """The file of each track, in the order of their names."""
    places = [root / place for place in _PLACES]
    base = next((p for p in places if any((p / genre).is_dir() for genre in GENRES)), None)
    if base is None:
        raise DataError(
            f"{root} holds no folders of genres ({', '.join(GENRES)}), and neither does a folder "
            "genres or genres_original in it. Unpack the data set, and point `root` at the folder "
            "that it is in."
        )
    paths: dict[str, Path] = {}
    for genre in GENRES:
        paths |= _of_genre(base / genre)
    counts = Counter(track.split(".")[0] for track in {*paths, _BROKEN})
    check_sizes(root, counts, dict.fromkeys(GENRES, _PER_GENRE))
    return paths


def _of_genre(folder: Path) -> dict[str, Path]:
    """The file of each track of one genre; other and hidden files are left alone."""
    entries = visible_entries(folder) if folder.is_dir() else []
    found: dict[str, Path] = {}
    for path in (each for each in entries if each.suffix.lower() in SOUNDS.endings):
        if not re.fullmatch(rf"{folder.name}\.\d{{5}}", path.stem):
            raise DataError(
                f"{path} is not named like {folder.name}.00000{path.suffix}, but a clip's name "
                "says which track it is. Move it away, or restore its name."
            )
        if path.stem in found:
            raise DataError(
                f"{folder} holds both {found[path.stem].name} and {path.name}, which are one "
                "track. Keep one of them."
            )
        found[path.stem] = path
    if not found:
        raise DataError(
            f"{folder} holds no clips ({', '.join(SOUNDS.endings)}), and every genre needs some. "
            "Fetch and unpack the data set again."
        )
    return found


def _refuse(faults: Mapping[str, str], root: Path) -> None:
    if faults:
        raise DataError(
            f"{counted(len(faults), 'clip')} in {root} cannot be used:\n{_listed_faults(faults)}"
            "\nFetch the data set again, or leave them out with `on_corrupt: skip`."
        )


def _left_out(faults: Mapping[str, str], parts: Mapping[str, Samples]) -> tuple[str, ...]:
    """A warning that names clips that are left out, with the numbers that remain."""
    if not faults:
        return ()
    sizes = ", ".join(
        f"{len(part):,} segments of {counted(len(_tracks(part)), 'track')} in {name}"
        for name, part in parts.items()
    )
    return (
        f"left out {counted(len(faults), 'clip')} that cannot be used:\n"
        f"{_listed_faults(faults)}\nThis leaves {sizes}.",
    )


def _tracks(part: Samples) -> set[str]:
    return {*map(str, np.asarray(part.clusters))}


def _listed_faults(faults: Mapping[str, str]) -> str:
    return first_few([f"{track}: {fault}" for track, fault in faults.items()])
