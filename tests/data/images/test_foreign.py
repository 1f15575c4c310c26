from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from offramp.data import Cifar, ForeignFolder, ForeignPictures, ImageFolder, TinyImageNet
from offramp.errors import ArgumentError, DataError, ShapeError
from offramp.preprocess import ImagePreprocess

PREPARE = ImagePreprocess(height=26, width=26, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))


def save(path: Path, seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(["b/1.png", "a.jpg", "b/c/2.JPEG", "b/c/10.webp", ".hidden.png"]):
        save(tmp_path / "pictures" / name, seed)
    (tmp_path / "pictures/words.txt").write_text("cat")
    return tmp_path / "pictures"


def loaded(root: Path, preprocess: ImagePreprocess = PREPARE, **settings: Any) -> ForeignPictures:
    return ForeignFolder(root=root, **settings).load(preprocess)


def test_pictures_of_all_folders_are_read_but_hidden_ones(root: Path) -> None:
    (root / "b/again").symlink_to(root)
    found = loaded(root)
    assert found.ids.tolist() == ["a.jpg", "b/1.png", "b/c/10.webp", "b/c/2.JPEG"]
    assert len(found) == 4


def test_they_become_32_pixels_wide_before_anything_else_as_in_torchvision(root: Path) -> None:
    found = loaded(root)
    steps = [
        transforms.Resize((32, 32)),
        transforms.Resize((26, 26)),
        transforms.ToTensor(),
        transforms.Normalize(PREPARE.mean, PREPARE.std),
    ]
    theirs = transforms.Compose(steps)
    rows = [3, 1]
    with Image.open(root / "b/c/2.JPEG") as first, Image.open(root / "b/1.png") as second:
        expected = torch.stack([theirs(first), theirs(second)])
    assert torch.equal(found.read(rows), expected)
    assert torch.equal(found.labelled(np.arange(4)).read(rows).inputs[0], expected)


def test_the_centred_square_is_kept_of_a_picture_that_is_none(tmp_path: Path) -> None:
    wide = Image.new("RGB", (90, 40), (200, 10, 10))
    wide.paste((10, 10, 200), (25, 0, 65, 40))
    wide.save(tmp_path / "wide.png")
    found = loaded(tmp_path, side=8).pictures[0]
    assert found.shape == (8, 8, 3)
    assert (found[:, 1:-1] == (10, 10, 200)).all()
    assert (found[:, [0, -1], 2] > 150).all()  # a filter sees a little beyond the edges


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_modes_become_three_channels(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "picture.tiff", 0, mode=mode)
    found = loaded(tmp_path)
    assert found.read([0]).shape == (1, 3, 26, 26)
    if mode == "L":
        assert np.ptp(found.pictures[0], axis=2).max() == 0


def test_a_backbone_of_one_channel_gets_grey_pictures(root: Path) -> None:
    grey = ImagePreprocess(height=26, width=26, channels=1, mean=(0.5,), std=(0.5,))
    found = loaded(root, grey)
    assert found.pictures[0].shape == (32, 32, 1)
    assert found.read([0, 1, 2]).shape == (3, 1, 26, 26)


def test_the_seed_draws_some_of_them(root: Path) -> None:
    drawn = {tuple(loaded(root, limit=2, seed=seed).ids.tolist()) for seed in range(8)}
    assert len(drawn) > 1
    assert {len(ids) for ids in drawn} == {2}
    assert loaded(root, limit=2).ids.tolist() == loaded(root, limit=2).ids.tolist()
    assert len(loaded(root, limit=9)) == 4


def test_labels_make_them_samples(root: Path) -> None:
    found = loaded(root)
    hard = found.labelled(np.array([5, 0, 5, 2]))
    assert hard.targets.tolist() == [5, 0, 5, 2]
    assert hard.ids is not None
    assert hard.ids.tolist() == found.ids.tolist()
    soft = np.full((4, 3), 1 / 3, np.float32)
    assert found.labelled(soft).read([1]).targets.shape == (1, 3)
    with pytest.raises(ShapeError, match=r"4 pictures .* 3 labels"):
        found.labelled(np.zeros(3, np.int64))
    assert loaded(root, side=9).labelled(hard.targets).content_key != hard.content_key


def test_files_of_a_test_are_found_under_any_name(root: Path, tmp_path: Path) -> None:
    for number, split in enumerate(["train", "validation", "calibration", "test"]):
        save(tmp_path / "photos" / split / "cat/1.png", 100 + number)
    test = ImageFolder(root=tmp_path / "photos", image_size=26).load().test
    assert not loaded(root).are_in(test).any()
    (root / "copy.png").write_bytes((tmp_path / "photos/test/cat/1.png").read_bytes())
    found = loaded(root)
    assert found.ids[found.are_in(test)].tolist() == ["copy.png"]


def test_pictures_of_cifars_test_are_found_in_files(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("stand_ins.cifar").write(tmp_path, 4, 0)
    test = Cifar(kind="cifar10", root=tmp_path).load().test
    pixels = (tmp_path / "cifar-10-batches-bin/test_batch.bin").read_bytes()[1:3073]
    Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)).save(
        root / "b/stray.png"
    )
    found = loaded(root)
    assert found.ids[found.are_in(test)].tolist() == ["b/stray.png"]


def test_tiny_imagenet_is_a_folder_of_pictures(tmp_path: Path) -> None:
    pytest.importorskip("stand_ins.tiny_imagenet").write(tmp_path, 3, 0)
    found = loaded(tmp_path / "tiny-imagenet-200/train")
    assert len(found) == 9
    assert found.stand_in
    assert found.pictures[0].shape == (32, 32, 3)
    splits = TinyImageNet(root=tmp_path).load()
    assert found.are_in(splits.train).all()
    assert not found.are_in(splits.test).any()


def test_pictures_that_cannot_be_read_are_named_or_left_out(root: Path) -> None:
    (root / "b/1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 4 files .*\n.*b/1\.png: .*not a picture"):
        loaded(root)
    found = loaded(root, on_corrupt="skip")
    assert found.ids.tolist() == ["a.jpg", "b/c/10.webp", "b/c/2.JPEG"]
    assert [text.split(":")[0] for text in found.skipped] == ["b/1.png"]
    for name in ("a.jpg", "b/c/2.JPEG", "b/c/10.webp"):
        (root / name).write_bytes(b"")
    with pytest.raises(DataError, match="4 of 4 files"):
        loaded(root, on_corrupt="skip")


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hold no pictures \(\.jpg"):
        loaded(tmp_path)
    with pytest.raises(DataError, match=r"none cannot be listed: No such file"):
        loaded(tmp_path / "none")


def test_only_our_preprocessing_is_taken(root: Path) -> None:
    with pytest.raises(ArgumentError, match=r"preprocess is a ToTensor\. Give an"):
        ForeignFolder(root=root).load(transforms.ToTensor())
