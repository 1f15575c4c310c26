"""Taps are kept under the key of the content that they were computed from, whatever happens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets, transforms

from offramp.backbones.staged import StagedBackbone
from offramp.data import ImageFolder, as_samples
from offramp.data.images import labelled_pictures
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError
from offramp.features import FeatureCache
from offramp.preprocess import ImagePreprocess


class Changing(NamedTuple):
    """Data of one kind whose sample 1 can be changed, and put back."""

    load: Callable[[], Any]
    change: Callable[[], None]
    put_back: Callable[[], None]


def _arrays(folder: Path) -> Changing:
    values = np.random.default_rng(0).normal(size=(5, 3, 12, 8)).astype(np.float32)
    return _in_memory(values, lambda: (values, np.arange(5) % 2))


def _tensors(folder: Path) -> Changing:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 12, 8))).float()
    return _in_memory(values, lambda: [(values[row], row % 2) for row in range(5)])


def _pictures(folder: Path) -> Changing:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 8), np.uint8)
    prepared = ImagePreprocess(height=12, width=8)
    return _in_memory(pixels, lambda: labelled_pictures(pixels, np.arange(5) % 2, prepared))


def _in_memory(values: Any, load: Callable[[], Any]) -> Changing:
    def turn() -> None:
        values[1] = (
            values[1].flip(-1) if isinstance(values, Tensor) else values[1][..., ::-1].copy()
        )

    return Changing(load, turn, turn)


def _files(folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Five pictures in each split; how one is overwritten, and put back."""
    draw = np.random.default_rng(0)
    for split in SPLIT_NAMES:
        for place in range(5):
            path = folder / split / "ab"[place % 2] / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (12, 8, 3), np.uint8)).save(path)
    path, other = folder / "train/a/2.png", folder / "test/b/3.png"
    before = path.read_bytes()
    return lambda: _write(path, other.read_bytes()), lambda: _write(path, before)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _image_folder(folder: Path) -> Changing:
    settings = ImageFolder(root=folder, image_size=(12, 8))
    return Changing(lambda: settings.load(check=False).train, *_files(folder))


def _torchvision_folder(folder: Path) -> Changing:
    change, put_back = _files(folder)
    data = datasets.ImageFolder(folder / "train", transforms.ToTensor())
    return Changing(lambda: data, change, put_back)


@pytest.fixture(params=[_arrays, _tensors, _pictures, _image_folder, _torchvision_folder])
def changing(request: pytest.FixtureRequest, tmp_path: Path) -> Changing:
    made: Changing = request.param(tmp_path / "data")
    return made


def test_a_picture_overwritten_and_restored_never_leaves_wrong_taps(
    changing: Changing, backbone: StagedBackbone, tmp_path: Path
) -> None:
    right = FeatureCache.of(backbone, changing.load(), tmp_path / "right")
    data = changing.load()
    changing.change()
    try:
        wrong = FeatureCache.of(backbone, data, tmp_path / "out")
        assert wrong.folder.name != right.folder.name
    except DataError as error:
        assert "changed since" in str(error)  # noqa: PT017  # refusing is right too
    changing.put_back()
    again = FeatureCache.of(backbone, changing.load(), tmp_path / "out")
    assert again.folder.name == right.folder.name
    assert _bytes(again) == _bytes(right)


def test_a_picture_overwritten_between_hash_and_taps_is_refused(
    changing: Changing, backbone: StagedBackbone, tmp_path: Path
) -> None:
    data = changing.load()
    samples = as_samples(data)
    assert len(samples.content_key) == 64
    changing.change()
    with pytest.raises(DataError, match=r"changed since"):
        FeatureCache.of(backbone, samples, tmp_path / "out")
    assert list((tmp_path / "out").glob("*/index.json")) == []


def test_a_data_set_that_gives_the_same_buffer_each_time_is_read_right(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    class Reusing:
        buffer = torch.empty(3, 12, 8)

        def __len__(self) -> int:
            return 19

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return self.buffer.copy_(images[0][index]), int(images[1][index])

    cache = FeatureCache.of(backbone, Reusing(), tmp_path / "reused")
    assert _bytes(cache) == _bytes(FeatureCache.of(backbone, images, tmp_path / "plain"))


def _bytes(cache: FeatureCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.folder.glob("*.bin")}
