"""Tiny ImageNet in its published layout, also as other readers find it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, transforms

from offramp.data import Samples, TinyImageNet
from offramp.data.images.tiny_imagenet import FOLDER
from offramp.data.published import MARK
from offramp.errors import DataError

stand_ins: Any = pytest.importorskip("stand_ins.tiny_imagenet")
IDS = sorted(stand_ins.CLASSES)
THEIRS = transforms.Compose(
    [
        transforms.Resize(30),
        transforms.CenterCrop(26),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    stand_ins.write(tmp_path, 4, 0)
    return tmp_path


def ours(root: Path, **settings: Any) -> TinyImageNet:
    return TinyImageNet(root=root, image_size=26, resize_to=30, **settings)


def ids_of(samples: Samples) -> list[str]:
    assert samples.ids is not None
    return [str(name) for name in samples.ids]


def test_torchvision_reads_the_same_training_pictures_in_the_same_order(root: Path) -> None:
    splits = ours(root).load()
    theirs = datasets.ImageFolder(str(root / FOLDER / "train"), THEIRS)
    assert splits.stand_in
    assert splits.target_names == ("goldfish", "tabby", "go-kart")
    assert len(splits.train) == len(theirs) == 12
    for row, (path, label) in enumerate(theirs.samples):
        assert ids_of(splits.train)[row] == str(Path(path).relative_to(root / FOLDER))
        value, own = splits.train[row]
        assert np.array_equal(value.numpy(), theirs[row][0].numpy())
        assert own == label


def test_validation_pictures_have_the_labels_of_the_annotations_and_are_divided(root: Path) -> None:
    splits = ours(root).load()
    rest = {name: part for name, part in splits.named().items() if name != "train"}
    assert {name: len(part) for name, part in rest.items()} == {
        "validation": 3,
        "calibration": 6,
        "test": 3,
    }
    with (root / FOLDER / "val/val_annotations.txt").open(newline="") as file:
        expected = {f"val/images/{row[0]}": row[1] for row in csv.reader(file, delimiter="\t")}
    found = {
        name: IDS[label]
        for part in rest.values()
        for name, label in zip(ids_of(part), part.targets.tolist(), strict=True)
    }
    assert found == expected


def test_a_grey_picture_becomes_three_equal_channels(root: Path) -> None:
    train = TinyImageNet(root=root, image_size=26, mean=(0.5,) * 3, std=(0.5,) * 3).load().train
    name = f"train/{IDS[0]}/images/{IDS[0]}_3.JPEG"
    with Image.open(root / FOLDER / name) as picture:
        assert picture.mode == "L"
    value = train[ids_of(train).index(name)][0].numpy()
    assert np.array_equal(value[0], value[1])
    assert np.array_equal(value[0], value[2])


def test_the_folder_itself_is_a_root_too(root: Path) -> None:
    outer, inner = ours(root).load(), ours(root / FOLDER).load()
    assert inner.stand_in
    assert inner.train.content_key == outer.train.content_key


def test_classes_give_the_order_of_the_backbone(root: Path) -> None:
    order = tuple(stand_ins.CLASSES)
    splits = ours(root, classes=order).load()
    assert splits.target_names == ("tabby", "goldfish", "go-kart")
    assert all(
        name.split("/")[1] == order[label]
        for name, label in zip(ids_of(splits.train), splits.train.targets, strict=True)
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (IDS[:2], rf"lacks {IDS[2]}\. List each WordNet id"),
        ([*IDS[:2], "cat"], rf"lacks {IDS[2]} and has the unknown cat\."),
    ],
)
def test_an_order_of_other_classes_is_refused(root: Path, classes: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ours(root, classes=tuple(classes)).load()


def test_classes_of_one_name_are_called_by_their_ids(root: Path) -> None:
    words = root / FOLDER / "words.txt"
    words.write_text(words.read_text().replace("tabby, tabby cat", "goldfish"))
    assert ours(root).load().target_names == (IDS[0], IDS[1], "go-kart")


def test_the_published_sizes_are_required_without_the_mark(root: Path) -> None:
    (root / MARK).unlink()
    sizes = (
        r"wnids\.txt has 3 instead of 200, train has 12 instead of 100,000, val has 12 instead of "
        rf"10,000, test has 4 instead of 10,000, train/{IDS[0]} has 4 instead of 500"
    )
    with pytest.raises(DataError, match=sizes):
        ours(root).load()


def test_an_archive_that_is_still_packed_says_how_to_unpack_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no folder {FOLDER} .*Fetch {FOLDER}\.zip and unpack it"):
        ours(tmp_path).load()
    (tmp_path / f"{FOLDER}.zip").touch()
    with pytest.raises(DataError, match=rf"Unpack .*: python -m zipfile -e .*{FOLDER}\.zip "):
        ours(tmp_path).load()


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(file.read_text().replace(old, new))

    return change


def moved(path: Path) -> None:
    path.rename(path.with_name(".elsewhere"))  # hidden names are not read


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("words.txt", moved, r"words\.txt cannot be read .*Unpack tiny-imagenet-200\.zip again"),
        ("words.txt", replaced("\tgo-kart", ""), r"words\.txt has no name for n03444034"),
        ("wnids.txt", replaced("n03444034", ""), r"wnids\.txt lacks n03444034"),
        ("wnids.txt", replaced("n034", "n934"), r"train lacks n93444034 and wnids\.txt lacks"),
        ("wnids.txt", lambda file: file.write_bytes(b"\xff"), r"wnids\.txt cannot be read"),
        ("train/n03444034/images", moved, r"n03444034/images is missing"),
        ("train/n03444034", moved, r"train lacks n03444034"),
        ("val/images", moved, r"val/images is missing"),
        ("test/images", moved, r"test/images is missing"),
        ("val/images/val_5.JPEG", Path.unlink, r"val_5\.JPEG is not in val/images"),
        ("val/val_annotations.txt", moved, r"val_annotations\.txt cannot be read"),
        ("val/val_annotations.txt", replaced("val_5", "val_1"), r"val_1\.JPEG has two lines"),
        ("val/val_annotations.txt", replaced("val_5.JPEG", ""), r"val_5\.JPEG has no line"),
        (
            "val/val_annotations.txt",
            replaced("\tn03444034", "\tn999"),
            r"is of the class 'n999', which is not in wnids\.txt",
        ),
        (
            "val/val_annotations.txt",
            lambda file: file.write_text("val_5.JPEG"),
            r"val_5\.JPEG is of the class ''",
        ),
        (
            "train/n03444034/images/n03444034_1.JPEG",
            lambda file: file.write_bytes(b"no picture"),
            r"1 of 24 files .*\n.*n03444034_1\.JPEG: .*not a picture",
        ),
    ],
)
def test_damaged_files_are_one_clear_error(
    root: Path, place: str, change: Callable[[Path], None], message: str
) -> None:
    change(root / FOLDER / place)
    with pytest.raises(DataError, match=message):
        ours(root).load()


def test_a_damaged_picture_can_be_left_out(root: Path) -> None:
    (root / FOLDER / "train/n03444034/images/n03444034_1.JPEG").write_bytes(b"no picture")
    splits = ours(root, on_corrupt="skip").load()
    assert len(splits.train) == 11
    assert len(splits.skipped) == 1
