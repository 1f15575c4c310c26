import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from numpy.typing import NDArray

from offramp.data import Cifar
from offramp.data.images.pickled import read_pickled
from offramp.data.published import MARK
from offramp.errors import DataError

NAMES = {
    "cifar10": [f"class{number}" for number in range(10)],
    "cifar100": [f"fine{number}" for number in range(100)],
}
PER_BATCH = 40
Batches = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
Writer = Callable[[Path, Batches], Path]


def batches(kind: str) -> Batches:
    """Records (N, 3072) and labels of each file of a small CIFAR."""
    rng = np.random.default_rng(0)
    ten = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    names = ten if kind == "cifar10" else ["train", "test"]
    return {
        name: (
            rng.integers(0, 256, (PER_BATCH, 3072), np.uint8),
            rng.permutation(np.arange(PER_BATCH) % len(NAMES[kind])),
        )
        for name in names
    }


def binary_files(kind: str, made: Batches) -> dict[str, bytes]:
    files = {}
    for name, (pixels, labels) in made.items():
        head = labels.astype(np.uint8)[:, None]
        coarse = head // 5 if kind == "cifar100" else head[:, :0]
        files[f"{name}.bin"] = np.hstack([coarse, head, pixels]).tobytes()
    text = "\n".join([*NAMES[kind], "", ""]).encode()
    files["batches.meta.txt" if kind == "cifar10" else "fine_label_names.txt"] = text
    return files


def python_files(kind: str, made: Batches) -> dict[str, bytes]:
    key = "labels" if kind == "cifar10" else "fine_labels"
    names = "label_names" if kind == "cifar10" else "fine_label_names"
    contents = {
        name: {"data": pixels, key: labels.tolist(), "filenames": ["a.png"] * len(labels)}
        for name, (pixels, labels) in made.items()
    }
    meta = {"batches.meta" if kind == "cifar10" else "meta": {names: NAMES[kind]}}
    return {name: pickle.dumps(one, protocol=2) for name, one in {**contents, **meta}.items()}


FOLDERS = {
    ("cifar10", binary_files): "cifar-10-batches-bin",
    ("cifar10", python_files): "cifar-10-batches-py",
    ("cifar100", binary_files): "cifar-100-binary",
    ("cifar100", python_files): "cifar-100-python",
}
ARCHIVES = {
    "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
    "cifar-10-batches-py": "cifar-10-python.tar.gz",
    "cifar-100-binary": "cifar-100-binary.tar.gz",
    "cifar-100-python": "cifar-100-python.tar.gz",
}


def unpacked(root: Path, folder: str, files: dict[str, bytes]) -> None:
    (root / folder).mkdir(parents=True)
    for name, content in files.items():
        (root / folder / name).write_bytes(content)
    (root / MARK).touch()


def packed(root: Path, folder: str, files: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / ARCHIVES[folder], "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (root / MARK).touch()


@pytest.mark.parametrize("write", [unpacked, packed])
@pytest.mark.parametrize(("kind", "files"), list(FOLDERS))
def test_each_published_form_gives_the_same_samples(
    kind: Any, files: Any, write: Any, tmp_path: Path
) -> None:
    made = batches(kind)
    write(tmp_path, FOLDERS[kind, files], files(kind, made))
    splits = Cifar(kind=kind, root=tmp_path, image_size=32).load()
    assert splits.stand_in
    assert splits.target_names == tuple(NAMES[kind])
    train = splits.train
    assert train.ids is not None
    for row in (0, len(train) - 1):
        batch, place = train.ids[row].split("/")
        pixels, labels = made[batch]
        value, label = train[row]
        restored = value.numpy() * np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
        restored += np.reshape([0.485, 0.456, 0.406], (3, 1, 1))
        expected = pixels[int(place)].reshape(3, 32, 32) / 255
        assert np.allclose(restored, expected, atol=1e-6)
        assert label == labels[int(place)]


def test_torchvision_reads_the_same_pictures_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches("cifar10")
    unpacked(tmp_path, "cifar-10-batches-py", python_files("cifar10", made))
    reader = torchvision.datasets.CIFAR10
    monkeypatch.setattr(reader, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    theirs = reader(str(tmp_path), train=False)
    ours = Cifar(kind="cifar10", root=tmp_path, image_size=32).load().test
    for row in range(len(theirs)):
        picture, label = theirs[row]
        value, own = ours[row]
        scaled = np.moveaxis(np.asarray(picture), -1, 0) / 255
        mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        assert np.allclose(value.numpy(), (scaled - mean) / std, atol=1e-5)
        assert label == own


def test_splits_are_drawn_by_seed_and_share_nothing(tmp_path: Path) -> None:
    unpacked(tmp_path, "cifar-10-batches-bin", binary_files("cifar10", batches("cifar10")))

    def loaded(**settings: Any) -> dict[str, set[str]]:
        splits = Cifar(kind="cifar10", root=tmp_path, **settings).load()
        return {
            name: {*map(str, part.ids)}
            for name, part in splits.named().items()
            if part.ids is not None
        }

    three = loaded(validation=40)
    assert {name: len(ids) for name, ids in three.items()} == {
        "train": 160,
        "validation": 40,
        "test": 40,
    }
    four = loaded(validation=40, calibration=30)
    assert [len(ids) for ids in four.values()] == [130, 40, 30, 40]
    assert len(set.union(*four.values())) == 240
    assert loaded(validation=40, split_seed=1)["validation"] != three["validation"]
    assert loaded(validation=40) == three


@pytest.mark.slow
def test_a_whole_data_set_is_drawn_to_the_papers_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {}
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (10_000, 3073), np.uint8)
        records[:, 0] = np.arange(10_000) % 10
        files[name] = records.tobytes()
    files["batches.meta.txt"] = "\n".join(NAMES["cifar10"]).encode()
    unpacked(tmp_path, "cifar-10-batches-bin", files)
    (tmp_path / MARK).unlink()
    splits = Cifar(kind="cifar10", root=tmp_path).load()
    assert [len(part) for part in splits.named().values()] == [40_000, 10_000, 10_000]
    assert {*np.bincount(splits.validation.targets).tolist()} == {1000}
    assert splits.calibration is None
    assert not splits.stand_in
    (tmp_path / "cifar-10-batches-bin/data_batch_5.bin").write_bytes(records[:9_999].tobytes())
    with pytest.raises(DataError, match="train has 49,999 instead of 50,000"):
        Cifar(kind="cifar10", root=tmp_path).load()


def python_2_file(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch as Python 2 and numpy 1 wrote it: all text, also that of the array, as `str`."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    numbers = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
    numbers += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array += number(0) + b"\x85" + text(b"b") + b"\x87R("
    array += number(1) + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array += numbers + b"\x89" + text(pixels.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def test_files_of_python_2_and_numpy_1_give_the_same_bits(tmp_path: Path) -> None:
    made = batches("cifar10")
    files = python_files("cifar10", made)
    old = {name: python_2_file(one[0], one[1].tolist()) for name, one in made.items()}
    for name, content in old.items():
        by_numpy = pickle.loads(content, encoding="latin1")  # noqa: S301  # made above
        assert np.array_equal(by_numpy["data"], made[name][0])
    for folder, written in (("new", files), ("old", files | old)):
        unpacked(tmp_path / folder, "cifar-10-batches-py", written)
    new, read = (
        Cifar(kind="cifar10", root=tmp_path / name, image_size=32).load() for name in ("new", "old")
    )
    for ours, theirs in zip(read.named().values(), new.named().values(), strict=True):
        assert np.array_equal(ours.targets, theirs.targets)
        for row in range(len(theirs)):
            assert np.array_equal(ours[row][0].numpy(), theirs[row][0].numpy())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("code", ["|u1", "<i8", ">i4", "<f8", ">f2"])
def test_an_array_of_any_numbers_is_read_as_numpy_reads_it(code: str, order: Any) -> None:
    array = np.arange(6).reshape(2, 3).astype(code, order=order)
    found = read_pickled(pickle.dumps({b"data": array}, protocol=2), "batch")["data"]
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype


class Hostile:
    def __init__(self, call: Any, *arguments: Any, state: Any = None) -> None:
        self._reduced = call, arguments, state

    def __reduce__(self) -> Any:
        return self._reduced


def flagged(flags: int) -> Hostile:
    """An array whose type claims flags, such as 63: that its numbers are Python objects."""
    state = 3, "|", None, None, None, -1, -1, flags
    numbers = Hostile(np.dtype, "u1", False, True, state=state)
    array = 1, (2, 3072), numbers, False, bytes(2 * 3072)
    return Hostile(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b", state=array)


def changing(module: str, name: str) -> bytes:
    """A good file that also sets an attribute of something that is asked for by name."""
    good = python_files("cifar10", batches("cifar10"))["data_batch_2"]
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + b"}U\x08__name__U\x04evilsb0" + good[2:]


@pytest.mark.parametrize(
    "content",
    [
        {"data": Hostile(eval, "1 + 1"), "labels": []},
        {"data": Hostile(np.ndarray, (2,)), "labels": []},
        {"data": np.array([Hostile(print, "x")], object), "labels": []},
        Hostile(exec, "raise SystemExit"),
        {"data": Hostile(np.frombuffer, b"12"), "labels": []},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [Hostile(complex, 1), 2]},
        *({"data": flagged(flags), "labels": [1, 2]} for flags in (1, 2, 8, 32, 63)),
        changing("numpy", "dtype"),
        changing("numpy", "ndarray"),
        changing("numpy.core.multiarray", "_reconstruct"),
        changing("_codecs", "encode"),
    ],
    ids=[
        "a call",
        "a class that is called",
        "objects in an array",
        "code",
        "a function",
        "a label",
        *(f"flags {flags} of a type" for flags in (1, 2, 8, 32, 63)),
        "a changed type",
        "a changed class",
        "a changed function of numpy",
        "a changed function of codecs",
    ],
)
def test_a_hostile_file_makes_nothing(content: Any, tmp_path: Path) -> None:
    files = python_files("cifar10", batches("cifar10"))
    whole = isinstance(content, bytes)
    files["data_batch_2"] = content if whole else pickle.dumps(content, protocol=2)
    unpacked(tmp_path, "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=r"data_batch_2 .*(could run code|cannot be read)"):
        Cifar(kind="cifar10", root=tmp_path).load()


def test_compressed_text_in_a_pickle_is_not_expanded(tmp_path: Path) -> None:
    files = python_files("cifar10", batches("cifar10"))
    files["batches.meta"] = b"c_codecs\nencode\n(V" + gzip.compress(b"0").hex().encode()
    files["batches.meta"] += b"\nVzip\ntR."
    unpacked(tmp_path, "cifar-10-batches-py", files)
    with pytest.raises(DataError, match="text in the encoding 'zip'"):
        Cifar(kind="cifar10", root=tmp_path).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("data_batch_3.bin"), r"lacks data_batch_3\.bin"),
        (
            lambda files: files.update({"test_batch.bin": files["test_batch.bin"][:-1]}),
            r"test_batch\.bin has .* not a whole number of records",
        ),
        (
            lambda files: files.update({"data_batch_1.bin": b"\x0b" + bytes(3072)}),
            "class number 11, but there are 10",
        ),
        (lambda files: files.update({"batches.meta.txt": b"a b"}), "names of 10 classes"),
    ],
    ids=["a missing file", "a short file", "a wrong label", "too few names"],
)
def test_damaged_files_are_one_clear_error(change: Any, message: str, tmp_path: Path) -> None:
    files = binary_files("cifar10", batches("cifar10"))
    change(files)
    unpacked(tmp_path, "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=message):
        Cifar(kind="cifar10", root=tmp_path).load()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    packed(tmp_path, "cifar-10-batches-bin", binary_files("cifar10", batches("cifar10")))
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        Cifar(kind="cifar10", root=tmp_path).load()


def test_a_folder_without_the_data_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither cifar-100-binary.tar.gz nor .*Fetch one"):
        Cifar(kind="cifar100", root=tmp_path).load()


def test_the_other_cifar_is_not_taken_for_it(tmp_path: Path) -> None:
    unpacked(tmp_path, "cifar-100-binary", binary_files("cifar100", batches("cifar100")))
    with pytest.raises(DataError, match=r"cifar-10-batches-bin or cifar-10-batches-py"):
        Cifar(kind="cifar10", root=tmp_path).load()
