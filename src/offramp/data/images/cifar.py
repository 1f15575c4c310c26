"""CIFAR-10 and CIFAR-100 from their published archives, packed or unpacked."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from offramp.data.images.pickled import read_pickled
from offramp.data.images.pictures import labelled_pictures
from offramp.data.published import check_sizes, held_out, is_stand_in
from offramp.data.splits import Splits, thinned
from offramp.errors import DataError
from offramp.preprocess import Deviation, ImagePreprocess, Mean, Preprocess
from offramp.progress import Progress, silent
from offramp.spec import Spec

_SIDE, _PIXELS = 32, 3 * 32 * 32
_SIZES = {"train": 50_000, "test": 10_000}
_LARGEST = 1 << 28  # bytes of the largest file in an archive


class _Form(NamedTuple):
    """One published form of one data set.

    Attributes:
        archive: Name of the archive.
        folder: What it unpacks to.
        parts: Files of the training and of the test part.
        names: File of the class names.
        head: Bytes before the pixels of a record of the binary form, the label last; 0 if files
            are Python's.
        label: Key of the labels of the Python form.
        name_key: Key of the class names of the Python form.
    """

    archive: str
    folder: str
    parts: Mapping[str, tuple[str, ...]]
    names: str
    head: int = 0
    label: str = ""
    name_key: str = ""


_FORMS = {
    "cifar10": (
        _Form(
            "cifar-10-binary.tar.gz",
            "cifar-10-batches-bin",
            {
                "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
                "test": ("test_batch.bin",),
            },
            "batches.meta.txt",
            head=1,
        ),
        _Form(
            "cifar-10-python.tar.gz",
            "cifar-10-batches-py",
            {
                "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
                "test": ("test_batch",),
            },
            "batches.meta",
            label="labels",
            name_key="label_names",
        ),
    ),
    "cifar100": (
        _Form(
            "cifar-100-binary.tar.gz",
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            "fine_label_names.txt",
            head=2,
        ),
        _Form(
            "cifar-100-python.tar.gz",
            "cifar-100-python",
            {"train": ("train",), "test": ("test",)},
            "meta",
            label="fine_labels",
            name_key="fine_label_names",
        ),
    ),
}
_NUM_CLASSES = {"cifar10": 10, "cifar100": 100}


class Cifar(Spec):
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009): 60,000 pictures of 32x32 pixels in colour.

    The paper trains on 40,000 pictures, validates on 10,000 and tests on 10,000 (section 4.1).

    Attributes:
        kind: Which of the two; CIFAR-100 with its 100 fine classes.
        root: Folder with the published archive, or with what it unpacks to: the binary or the
            Python version. Of the Python version only arrays, numbers and names are read.
        validation: Number of training pictures drawn for validation.
        calibration: Number of training pictures drawn for calibration. The paper has none, and
            without them policies cannot be calibrated.
        split_seed: Seed of the draw, which is balanced over the classes; the paper gives none.
        image_size: Side of the square that the backbone reads, in pixels.
        interpolation: Pillow's filter that resizes to it.
        mean: Per channel, on the [0, 1] scale.
        std: Per channel, on the [0, 1] scale.
        limit: Number of pictures kept of each split, for a quick trial; each class keeps its share.
    """

    kind: Literal["cifar10", "cifar100"]
    root: Path
    validation: PositiveInt = 10_000
    calibration: NonNegativeInt = 0
    split_seed: NonNegativeInt = 0
    image_size: PositiveInt = 224
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: Annotated[tuple[Mean, ...], Field(min_length=3, max_length=3)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)] = (0.229, 0.224, 0.225)
    limit: PositiveInt | None = None

    @property
    def preprocess(self) -> ImagePreprocess:
        """Preprocessing of a picture."""
        return ImagePreprocess(
            height=self.image_size,
            width=self.image_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    @property
    def inputs(self) -> tuple[Preprocess, ...]:
        """Preprocessing of each input of the backbone."""
        return (self.preprocess,)

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """Read all pictures into memory, as bytes, which checks the files in any case.

        Raises:
            DataError: Files are missing, damaged, not complete or of another data set, or hold
                anything but numbers, names and arrays.
        """
        root = self.root.expanduser()
        form, files = _opened(root, _FORMS[self.kind])
        count = sum(map(len, form.parts.values()))
        parts, names = {}, _class_names(form, files, _NUM_CLASSES[self.kind])
        for part, listed in form.parts.items():
            read = []
            for number, name in enumerate(listed):
                progress("reading pictures", number + 5 * (part == "test"), count)
                read.append(_batch(form, name, files[name], len(names)))
            parts[part] = _Part.joined(read, listed)
        progress("reading pictures", count, count)
        check_sizes(root, {name: len(part.labels) for name, part in parts.items()}, _SIZES)
        return self._splits(parts, names, stand_in=is_stand_in(root))

    def _splits(
        self, parts: "Mapping[str, _Part]", names: tuple[str, ...], *, stand_in: bool
    ) -> Splits:
        train, test = (
            labelled_pictures(parts[n].pixels, parts[n].labels, self.preprocess, ids=parts[n].ids)
            for n in ("train", "test")
        )
        wanted = {"validation": self.validation, "calibration": self.calibration}
        drawn = held_out(wanted, train.digests, train.targets, self.split_seed, stand_in=stand_in)
        found = {name: train.subset(np.flatnonzero(drawn == name)) for name in np.unique(drawn)}
        return Splits.of(
            {name: thinned(part, self.limit) for name, part in {**found, "test": test}.items()},
            target_names=names,
            inputs=self.inputs,
            origin=str(self.root),
            stand_in=stand_in,
        )


class _Part(NamedTuple):
    """Pictures of one part: uint8 (N, 32, 32, 3), class numbers (N,) and ids (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]

    @classmethod
    def joined(
        cls, read: "list[tuple[NDArray[np.uint8], NDArray[np.int64]]]", names: tuple[str, ...]
    ) -> "_Part":
        """Batches as one; an id is the name of the batch and the place in it."""
        ids = [
            f"{Path(name).stem}/{place}"
            for name, (_, labels) in zip(names, read, strict=True)
            for place in range(len(labels))
        ]
        pixels = np.concatenate([pixels for pixels, _ in read])
        return cls(
            np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)),
            np.concatenate([labels for _, labels in read]),
            np.array(ids, np.str_),
        )


def _opened(root: Path, forms: tuple[_Form, ...]) -> tuple[_Form, dict[str, bytes]]:
    """The first form whose files or archive exist, and the content of its files by name."""
    for form in forms:
        wanted = [form.names, *(name for names in form.parts.values() for name in names)]
        for folder in (root / form.folder, root):
            if all((folder / name).is_file() for name in wanted):
                return form, {name: _content(folder / name) for name in wanted}
        if (root / form.archive).is_file():
            return form, _unpacked(root / form.archive, form.folder, wanted)
    first = forms[0]
    near = [f for f in forms if (root / f.folder).is_dir() or root.name == f.folder]
    if near:
        folder = root / near[0].folder if (root / near[0].folder).is_dir() else root
        wanted = [near[0].names, *(name for names in near[0].parts.values() for name in names)]
        missing = [name for name in wanted if not (folder / name).is_file()]
        raise DataError(f"{folder} lacks {', '.join(missing)}. Unpack {near[0].archive} again.")
    raise DataError(
        f"{root} holds neither {' nor '.join(form.archive for form in forms)}, nor what they "
        f"unpack to ({first.folder} or {forms[1].folder}). Fetch one of them from the data set's "
        "page, and point `root` at the folder that it is in."
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Allow reading it.") from error


def _unpacked(archive: Path, folder: str, wanted: list[str]) -> dict[str, bytes]:
    """Files of a tar archive, read in memory; nothing is written."""
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix(f"{folder}/")
                if name not in wanted or not member.isfile():
                    continue
                if member.size > _LARGEST:
                    raise DataError(f"{name} in {archive} is too large. Fetch the archive again.")
                opened = tar.extractfile(member)
                found[name] = b"" if opened is None else opened.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive} is damaged ({error}). Fetch it again.") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}. Fetch it again.")
    return found


def _class_names(form: _Form, files: Mapping[str, bytes], number: int) -> tuple[str, ...]:
    content = files[form.names]
    if form.head:
        found: Any = content.decode("latin1").split()
    else:
        found = read_pickled(content, form.names).get(form.name_key)
    good = isinstance(found, list) and all(isinstance(name, str) for name in found)
    if not good or len({*found}) != number:
        raise DataError(
            f"{form.names} should hold the names of {number} classes, and does not. Fetch "
            f"{form.archive} again."
        )
    return tuple(found)


def _batch(
    form: _Form, name: str, content: bytes, num_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3072) and labels (N,) of one file."""
    pixels, labels = _records(form, name, content) if form.head else _pickled(form, name, content)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(
            f"{name} holds the class number {labels.max()}, but there are {num_classes} classes. "
            f"Fetch {form.archive} again."
        )
    return pixels, labels


def _records(form: _Form, name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of the binary form: one or two bytes of labels, then the pixels by channel."""
    length = form.head + _PIXELS
    if not content or len(content) % length:
        raise DataError(
            f"{name} has {len(content):,} bytes, which is not a whole number of records of "
            f"{length:,}. Fetch {form.archive} again."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, form.head :], records[:, form.head - 1].astype(np.int64)


def _pickled(form: _Form, name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found = read_pickled(content, name)
    pixels: Any = found.get("data")
    labels: Any = found.get(form.label)
    shaped = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2
    whole = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not shaped or not whole or pixels.shape != (len(labels), _PIXELS):
        raise DataError(
            f"{name} should hold `data`, a uint8 array of shape (N, {_PIXELS}), and "
            f"`{form.label}`, a list of N class numbers, but does not. Fetch {form.archive} again."
        )
    return pixels, np.array(labels, np.int64)
