import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.data.images.embedded import SHIPPED, FashionMNIST, read_drawn
from offramp.data.images.idx import idx_bytes, read_idx
from offramp.data.samples import Samples
from offramp.data.splits import SPLIT_NAMES, Splits
from offramp.errors import DataError

# A Fashion-MNIST in small: 13 training and 5 test images of 4x3 pixels, 3 classes.
INDICES = {
    "train": [12, 3, 7],
    "validation": [0, 9],
    "calibration": [4, 1],
    "test": [4, 2],
    "held_out": [0, 9, 4, 1, 6],
}
PART = {"train": "train", "validation": "train", "calibration": "train", "test": "t10k"}


def _ids(images: Samples) -> list[str]:
    assert images.ids is not None
    return [str(name) for name in images.ids]


def _write(folder: Path, part: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels))


def _digest(images: NDArray[np.uint8]) -> str:
    digests = "".join(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    return hashlib.sha256(digests.encode()).hexdigest()


@pytest.fixture
def official(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    folder = tmp_path / "official"
    folder.mkdir()
    for part, count in {"train": 13, "t10k": 5}.items():
        images = rng.integers(0, 256, (count, 4, 3), np.uint8)
        _write(folder, part, images, rng.integers(0, 3, count, np.uint8))
    return folder


@pytest.fixture
def shipped(tmp_path: Path, official: Path) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    files = {
        part: (
            read_idx(official / f"{part}-images-idx3-ubyte.gz"),
            read_idx(official / f"{part}-labels-idx1-ubyte.gz"),
        )
        for part in ("train", "t10k")
    }
    for split, part in PART.items():
        images, labels = files[part]
        _write(folder, split, images[INDICES[split]], labels[INDICES[split]])
    record = {
        "class_names": ["shirt", "shoe", "bag"],
        "official_sha256": {part: _digest(images) for part, (images, _) in files.items()},
        "indices": INDICES,
    }
    (folder / "splits.json").write_text(json.dumps(record))
    return folder


def _same_images(drawn: Mapping[str, tuple[NDArray[np.generic], ...]], official: Path) -> None:
    for images, labels, ids in drawn.values():
        for image, label, name in zip(images, labels, ids, strict=True):
            part, place = str(name).split("/")
            np.testing.assert_array_equal(
                image, read_idx(official / f"{part}-images-idx3-ubyte.gz")[int(place)]
            )
            assert label == read_idx(official / f"{part}-labels-idx1-ubyte.gz")[int(place)]


def test_without_a_root_the_shipped_images_are_read(shipped: Path, official: Path) -> None:
    drawn, class_names = read_drawn(shipped, None)
    assert class_names == ("shirt", "shoe", "bag")
    assert {name: len(part.images) for name, part in drawn.items()} == {
        "train": 3, "validation": 2, "calibration": 2, "test": 2,
    }  # fmt: skip
    assert drawn["train"].ids.tolist() == ["train/12", "train/3", "train/7"]
    _same_images(drawn, official)


def test_a_root_trains_on_all_but_the_held_out_images(shipped: Path, official: Path) -> None:
    drawn, _ = read_drawn(shipped, official)
    assert drawn["train"].ids.tolist() == [f"train/{i}" for i in (2, 3, 5, 7, 8, 10, 11, 12)]
    assert drawn["validation"].ids.tolist() == ["train/0", "train/9"]
    assert drawn["calibration"].ids.tolist() == ["train/4", "train/1"]
    assert drawn["test"].ids.tolist() == [f"t10k/{i}" for i in range(5)]
    _same_images(drawn, official)


def test_plain_files_serve_as_well_as_gzipped_ones(shipped: Path, official: Path) -> None:
    before, _ = read_drawn(shipped, official)
    for path in sorted(official.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    after, _ = read_drawn(shipped, official)
    for name in SPLIT_NAMES:
        np.testing.assert_array_equal(after[name].images, before[name].images)


def test_another_set_in_the_same_format_is_refused(shipped: Path, official: Path) -> None:
    rng = np.random.default_rng(6)
    images = rng.integers(0, 256, (13, 4, 3), np.uint8)
    (official / "train-images-idx3-ubyte.gz").write_bytes(idx_bytes(images))
    with pytest.raises(DataError, match=r"train images in .*official are not Fashion-MNIST's"):
        read_drawn(shipped, official)


def test_wrong_labels_are_refused(shipped: Path, official: Path) -> None:
    labels = read_idx(official / "t10k-labels-idx1-ubyte.gz")
    (official / "t10k-labels-idx1-ubyte.gz").write_bytes(idx_bytes((labels + 1) % 3))
    with pytest.raises(DataError, match=r"t10k labels .* are not Fashion-MNIST's"):
        read_drawn(shipped, official)


def test_labels_of_another_number_are_refused(shipped: Path, official: Path) -> None:
    (official / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(12, np.uint8)))
    with pytest.raises(DataError, match=r"\(13, 4, 3\) but labels of shape \(12,\)"):
        read_drawn(shipped, official)


def test_a_missing_official_file_is_named(shipped: Path, official: Path) -> None:
    (official / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz does not exist"):
        read_drawn(shipped, official)


def test_a_truncated_official_file_is_named(shipped: Path, official: Path) -> None:
    path = official / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        read_drawn(shipped, official)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return FashionMNIST().load()


def test_the_package_ships_four_splits_of_ten_classes(splits: Splits) -> None:
    assert {name: len(images) for name, images in splits.named().items()} == {
        "train": 8000, "validation": 2000, "calibration": 5000, "test": 2000,
    }  # fmt: skip
    assert len(splits.target_names) == 10
    for images in splits.named().values():
        assert sorted(set(images.targets.tolist())) == list(range(10))


def test_no_two_shipped_images_are_the_same(splits: Splits) -> None:
    digests = np.concatenate([images.digests for images in splits.named().values()])
    assert len(np.unique(digests)) == 17_000


def test_the_backbone_never_saw_validation_calibration_or_test_images(splits: Splits) -> None:
    held_out = json.loads((SHIPPED / "splits.json").read_text())["indices"]["held_out"]
    unseen = {f"train/{place}" for place in held_out}
    assert len(unseen) == 10_000
    named = splits.named()
    assert {*_ids(named["validation"]), *_ids(named["calibration"])} <= unseen
    assert not unseen & {*_ids(splits.train)}
    assert all(name.startswith("t10k/") for name in _ids(splits.test))


def test_an_image_is_resized_to_the_given_size() -> None:
    images = FashionMNIST(image_size=36, limit=3).load().validation
    values, label = images[1]
    assert values.shape == (3, 36, 36)
    assert values.dtype.is_floating_point
    assert -1 <= float(values.min()) < float(values.max()) <= 1
    assert isinstance(label, int)


def test_a_limit_keeps_so_many_of_each_split(splits: Splits) -> None:
    few = FashionMNIST(limit=1500).load()
    assert {len(images) for images in few.named().values()} == {1500}
    assert set(_ids(few.test)) < set(_ids(splits.test))


def test_loading_tells_how_far_it_is() -> None:
    seen: list[tuple[str, int, int]] = []
    FashionMNIST(limit=2).load(lambda *state: seen.append(state))
    assert seen == [("reading images", 0, 1), ("reading images", 1, 1)]


@pytest.mark.slow
def test_the_official_files_hold_every_shipped_image_at_its_place() -> None:
    folder = os.environ.get("OFFRAMP_FASHION_MNIST")
    if folder is None:
        pytest.skip("OFFRAMP_FASHION_MNIST does not name a folder with the official files")
    full = FashionMNIST(root=folder).load()
    assert {name: len(images) for name, images in full.named().items()} == {
        "train": 50_000, "validation": 2000, "calibration": 5000, "test": 10_000,
    }  # fmt: skip
    known = {
        name: digest
        for images in full.named().values()
        for name, digest in zip(_ids(images), images.digests, strict=True)
    }
    for images in FashionMNIST().load().named().values():
        for name, digest in zip(_ids(images), images.digests, strict=True):
            assert known[name] == digest


def test_the_shipped_folder_is_not_taken_for_the_official_one(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SHIPPED, copy)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(copy / f"test-{kind}-ubyte.gz", copy / f"t10k-{kind}-ubyte.gz")
    with pytest.raises(DataError, match="are not Fashion-MNIST's"):
        FashionMNIST(root=copy).load()
