"""DISCO: people in a picture and one second of sound, with where they are."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from offramp.data.chain import Chain
from offramp.data.crowds.degradation import Degradation
from offramp.data.crowds.heads import read_map
from offramp.data.crowds.source import TEXT, CrowdSource, size_of
from offramp.data.published import check_sizes, held_out, is_stand_in
from offramp.data.samples import Samples
from offramp.data.splits import SPLIT_ALIASES, Splits, first_few, thinned
from offramp.errors import DataError
from offramp.preprocess import Deviation, ImagePreprocess, Mean, Preprocess, Size
from offramp.preprocess.media import visible_entries
from offramp.preprocess.sound import check_libraries
from offramp.preprocess.spectrogram import VGGISH
from offramp.progress import Progress, silent
from offramp.spec import Spec

_SIZES = {"train": 1435, "val": 200, "test": 300}
_PICTURES, _SOUNDS = ("imgs", ".jpg"), ("auds", ".wav")
_RANGES = 10  # of counts, over which draws are balanced

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Disco(Spec):
    """DISCO (Hu et al. 2020): 1,935 pictures of crowds with a second of sound and every head.

    A sample has two inputs, the picture and the spectrogram of the sound; its target is the number
    of people. The published split has 1,435, 200 and 300 examples, as in the paper (section 4.1).

    Attributes:
        root: Folder with `imgs/NAME.jpg`, `auds/NAME.wav`, and `density/SPLIT/NAME.mat` or
            `SPLIT/NAME.mat`, where SPLIT is train, val or test.
        dots: Folder with NAME.txt for each example: the `x y` of each head, one a line. Counts and
            density maps then come from these, and the .mat files only say which split it is.
        calibration: Number of training examples drawn for calibration. The paper has none, and
            without them policies cannot be calibrated.
        split_seed: Seed of the draw, which is balanced over the counts.
        image_size: Height and width of the picture that the backbone reads, in pixels.
        interpolation: Pillow's filter that resizes to it.
        mean: Per channel, on the [0, 1] scale; those of the original code, as `std`.
        std: Per channel, on the [0, 1] scale.
        sound: What makes the second input of a sound.
        degrade: Make all pictures worse, to see what the sound is worth.
        on_corrupt: "raise" refuses the data when an example cannot be used; "skip" leaves such
            examples out, with a warning for each.
        limit: Number of examples kept of each split, for a quick trial, spread over the counts.
    """

    kind: Literal["disco"] = "disco"
    root: Path
    dots: Path | None = None
    calibration: NonNegativeInt = 0
    split_seed: NonNegativeInt = 0
    image_size: Size = (576, 1024)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: Annotated[tuple[Mean, ...], Field(min_length=3, max_length=3)] = (0.4108, 0.3706, 0.3597)
    std: Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)] = (
        *(0.2786, 0.2693, 0.2716),
    )
    sound: Chain = VGGISH
    degrade: Degradation | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    @property
    def preprocess(self) -> ImagePreprocess:
        """Preprocessing of a picture."""
        size = self.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        return ImagePreprocess(
            height=height,
            width=width,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    @property
    def inputs(self) -> tuple[Preprocess, ...]:
        """Preprocessing of picture and sound."""
        return self.preprocess, self.sound

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """Read every map and hash all files; pictures and sounds are decoded when they are used.

        Args:
            progress: Called after each example.
            check: Decode every file once now, see `Splits.check`.

        Raises:
            DataError: A file is missing, cannot be read or does not fit the others of its name
                (unless skipped), or the data set is not complete.
        """
        check_libraries()
        root = self.root.expanduser()
        listed = _listed(root, None if self.dots is None else self.dots.expanduser())
        good, faults = self._read(listed, progress)
        if self.on_corrupt == "raise":
            _refuse(faults, len(listed), root, ", or leave them out with `on_corrupt: skip`")
        for fault in faults:
            _log.warning("left out, since it cannot be used: %s", fault)
        stand_in = is_stand_in(root)
        parts = self._divided(good, stand_in=stand_in)
        found = Splits.of(
            {name: thinned(part, self.limit) for name, part in parts.items()},
            target_names=("people",),
            inputs=self.inputs,
            task="regression",
            origin=str(self.root),
            skipped=faults,
            stand_in=stand_in,
        )
        if check and self.on_corrupt == "raise":
            found.check(progress)
        return found

    def _read(
        self, listed: "list[_Example]", progress: Progress
    ) -> "tuple[dict[_Example, _Content], tuple[str, ...]]":
        """What is in each example that can be used, and a line on each other."""
        good, faults = {}, []
        for place, example in enumerate(listed):
            progress("reading examples", place, len(listed))
            try:
                good[example] = self._content(example)
            except Exception as error:  # decoders raise many kinds
                faults.append(f"{example.split}/{error}")
        progress("reading examples", len(listed), len(listed))
        return good, tuple(faults)

    def _content(self, example: "_Example") -> "_Content":
        """Digests and count of an example, whose picture and sound are decoded if bad ones go."""
        picture, sound, last = example.paths
        contents = [path.read_bytes() for path in example.paths]
        size = _of(picture, size_of, contents[0])
        if self.on_corrupt == "skip":
            _of(picture, self.preprocess, contents[0])
            _of(sound, self.sound, contents[1])
        found = _of(last, partial(read_map, size=size, text=last.suffix == TEXT), contents[2])
        digests = tuple(hashlib.sha256(content).hexdigest() for content in contents)
        return _Content(digests, float(found.sum()))

    def _divided(
        self, good: "Mapping[_Example, _Content]", *, stand_in: bool
    ) -> dict[str, Samples]:
        """The samples of each split."""
        names = np.array([each.name for each in good], np.str_)
        source = CrowdSource(
            np.array([each.paths for each in good], object).reshape(-1, 3),
            np.array([each.digests for each in good.values()], np.str_).reshape(-1, 3),
            np.array([each.people for each in good.values()], np.float32),
            (self.preprocess, self.sound),
            names=names,
            degradation=self.degrade,
        )
        splits = np.array([SPLIT_ALIASES.get(e.split, e.split) for e in good], "U11")
        train = np.flatnonzero(splits == "train")
        if self.calibration and len(train):
            digests, counts = source.digests[train], source.targets[train]
            draw = {"calibration": self.calibration}
            facts = digests, _tenths(counts), self.split_seed
            splits[train] = held_out(draw, *facts, stand_in=stand_in)
        wanted = ("train", "validation", *["calibration"] * bool(self.calibration), "test")
        if empty := [name for name in wanted if name not in splits]:
            raise DataError(
                f"{', '.join(empty)} would be empty: {self.root} has {len(good):,} examples that "
                "can be used. Fetch and unpack the data set again."
            )
        samples = Samples.of(source, ids=names)
        return {name: samples.subset(np.flatnonzero(splits == name)) for name in wanted}


class _Example(NamedTuple):
    """Files of one example, not opened yet: picture, sound and map."""

    name: str
    split: str
    paths: tuple[Path, Path, Path]


class _Content(NamedTuple):
    """SHA-256 of picture, sound and map, and the number of people."""

    digests: tuple[str, ...]
    people: float


def _listed(root: Path, dots: Path | None) -> list[_Example]:
    """Every example, in the order of splits and names, after it is checked that none lacks a file.

    Raises:
        DataError: An example lacks a file or is in two splits, or the numbers are not those of the
            published data set.
    """
    base = next((b for b in (root / "density", root) if (b / "train").is_dir()), None)
    if base is None:
        raise DataError(
            f"{root} holds no folder density/train, and no folder train. Unpack DISCO so that it "
            "holds imgs, auds and density, and point `root` at the folder that these are in."
        )
    maps = {split: _files(base / split, ".mat") for split in _SIZES}
    check_sizes(root, {split: len(files) for split, files in maps.items()}, _SIZES)
    pictures, sounds = (_files(root / name, ending) for name, ending in (_PICTURES, _SOUNDS))
    heads = None if dots is None else _files(dots, TEXT)
    found, faults = [], []
    seen: dict[str, str] = {}
    for split, files in maps.items():
        for name, file in files.items():
            if name in seen:
                faults.append(f"{name}: {name}.mat is in both {seen[name]} and {split}")
            seen[name] = split
            last = file if heads is None else heads.get(name)
            paths = pictures.get(name), sounds.get(name), last
            wanted = [f"{folder}/{name}{ending}" for folder, ending in (_PICTURES, _SOUNDS)]
            wanted.append(f"{dots}/{name}{TEXT}")
            missing = [w for w, path in zip(wanted, paths, strict=True) if path is None]
            if missing:
                faults.append(f"{name}: there is no {' and no '.join(missing)}")
            found.append(_Example(name, split, paths))  # type: ignore[arg-type]  # refused below
    faults += [f"{name}: there is no {name}.mat" for name in {*pictures, *sounds} - {*seen}]
    _refuse(tuple(faults), len(found), root)
    return found


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Files with this ending by their names without it; hidden ones are left alone."""
    entries = visible_entries(folder) if folder.is_dir() else []
    return {path.stem: path for path in entries if path.suffix.lower() == ending}


def _of(path: Path, read: Callable[[bytes], T], content: bytes) -> T:
    """What `read` makes of the content of a file; errors name the file."""
    try:
        return read(content)
    except Exception as error:  # decoders raise many kinds
        raise DataError(f"{path.name}: {error}") from error


def _refuse(faults: tuple[str, ...], total: int, root: Path, remedy: str = "") -> None:
    if faults:
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError(
            f"{number} in the {total:,} examples of {root}:\n{first_few(sorted(faults))}\n"
            f"Fetch and unpack the data set again{remedy}."
        )


def _tenths(counts: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N,) in which tenth of all counts each lies."""
    ranks = np.searchsorted(np.sort(counts), counts)
    tenths: NDArray[np.int64] = ranks * _RANGES // len(counts)
    return tenths
