import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offramp.data import Samples, as_samples
from offramp.data.images import at_size, labelled_pictures
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess

PREPROCESS = ImagePreprocess(height=7, width=5, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def images() -> Samples:
    pixels = np.random.default_rng(1).integers(0, 256, (11, 6, 9, 3), np.uint8)
    return _labelled(pixels, np.arange(11, dtype=np.int64) % 4)


def _labelled(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    ids = np.array([f"photo/{place}" for place in range(len(labels))])
    return labelled_pictures(pixels, labels, PREPROCESS, ids=ids)


def _ids(images: Samples) -> list[str]:
    assert images.ids is not None
    return [str(name) for name in images.ids]


def test_a_batch_has_the_bits_of_its_single_items(images: Samples) -> None:
    batch = images.read([10, 3, 3, 0])
    [values] = batch.inputs
    assert values.shape == (4, 3, 7, 5)
    for row, place in enumerate([10, 3, 3, 0]):
        single, label = images[place]
        assert torch.equal(values[row], single)
        assert batch.targets[row] == label


def test_a_subset_keeps_pictures_labels_and_names_together(images: Samples) -> None:
    chosen = images.subset([8, 2, 5]).subset([2, 0])
    assert _ids(chosen) == ["photo/5", "photo/8"]
    assert chosen.targets.tolist() == [1, 0]
    assert chosen.digests.tolist() == images.digests[[5, 8]].tolist()
    assert torch.equal(chosen[1][0], images[8][0])


def test_the_content_key_covers_pixels_labels_and_order() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (11, 6, 9, 3), np.uint8)
    labels = np.arange(11, dtype=np.int64) % 4
    one_pixel, one_label = pixels.copy(), labels.copy()
    one_pixel[9, 5, 8, 2] ^= 1
    one_label[4] = 3
    images = _labelled(pixels, labels)
    others = {
        _labelled(one_pixel, labels).content_key,
        _labelled(pixels, one_label).content_key,
        images.subset([1, 0, *range(2, 11)]).content_key,
        images.subset(range(10)).content_key,
    }
    assert len(others) == 4
    assert images.content_key not in others
    assert _labelled(pixels.copy(), labels).content_key == images.content_key


def test_pixels_of_another_shape_have_another_digest() -> None:
    pixels = np.arange(12, dtype=np.uint8)
    shaped = [pixels.reshape(1, *size) for size in ((3, 4), (4, 3))]
    found = [labelled_pictures(array, np.zeros(1, int), PREPROCESS).digests for array in shaped]
    assert found[0] != found[1]


def test_a_picture_overwritten_in_its_array_is_refused() -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    images = labelled_pictures(pixels, np.zeros(3, int), PREPROCESS)
    pixels[1, 2, 3] = 7
    assert images.read([0, 2]).rows.tolist() == [0, 2]
    with pytest.raises(DataError, match="picture 1 of an array has changed"):
        images.read([1])


def test_preprocessing_changes_the_content_key(images: Samples) -> None:
    smaller = at_size(images, 3)
    assert smaller[0][0].shape == (3, 4, 3)
    assert smaller.digests.tolist() == images.digests.tolist()
    assert smaller.content_key != images.content_key


def test_other_ids_change_the_content_key(images: Samples) -> None:
    renamed = dataclasses.replace(images, ids=np.char.add(_ids(images), "b"))
    assert renamed.content_key != images.content_key


def test_labels_of_another_number_are_refused() -> None:
    pixels = np.zeros((11, 6, 9, 3), np.uint8)
    with pytest.raises(ShapeError, match="11 pictures or sounds come with 10 labels"):
        labelled_pictures(pixels, np.zeros(10, np.int64), PREPROCESS)


def test_an_empty_set_is_refused(images: Samples) -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        images.subset([])


def test_only_pictures_come_at_another_size() -> None:
    with pytest.raises(DataError, match="only pictures"):
        at_size(as_samples((np.zeros((2, 3)), np.zeros(2, int))), 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"height": 7, "width": 10, "resize_to": 14}, (4, 6, 8)),
        ({"height": 7, "width": 10, "resize_to": (14, 21)}, (4, 6, (8, 12))),
        ({"height": 7, "width": 10, "crop": 0.5}, (4, 6, None)),
        ({"height": 4, "width": 4, "resize_to": 5}, (4, 4, 5)),
    ],
)
def test_another_size_shows_the_same_part_of_a_picture(
    settings: dict[str, object], expected: tuple[int, int, object]
) -> None:
    smaller = ImagePreprocess.model_validate(settings).with_shorter_side(4)
    assert (smaller.height, smaller.width, smaller.resize_to) == expected
    assert smaller.crop == settings.get("crop")
