import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offramp.data.images import LabelledImages, array_digests
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess

PREPROCESS = ImagePreprocess(height=7, width=5, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def images() -> LabelledImages:
    pixels = np.random.default_rng(1).integers(0, 256, (11, 6, 9, 3), np.uint8)
    return _labelled(pixels, np.arange(11, dtype=np.int64) % 4)


def _labelled(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabelledImages:
    ids = np.array([f"photo/{place}" for place in range(len(labels))])
    return LabelledImages(pixels, labels, ids, array_digests(pixels), PREPROCESS)


def test_a_batch_has_the_bits_of_its_single_items(images: LabelledImages) -> None:
    values, labels = images.batch([10, 3, 3, 0])
    assert values.shape == (4, 3, 7, 5)
    for row, place in enumerate([10, 3, 3, 0]):
        single, label = images[place]
        assert torch.equal(values[row], single)
        assert labels[row] == label


def test_a_subset_keeps_pictures_labels_and_names_together(images: LabelledImages) -> None:
    chosen = images.subset([8, 2, 5]).subset([2, 0])
    assert chosen.ids.tolist() == ["photo/5", "photo/8"]
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.digests.tolist() == images.digests[[5, 8]].tolist()
    assert torch.equal(chosen[1][0], images[8][0])


@pytest.mark.parametrize(("limit", "places"), [(4, [0, 2, 5, 8]), (11, range(11)), (99, range(11))])
def test_thinning_keeps_evenly_spaced_pictures(
    images: LabelledImages, limit: int, places: list[int]
) -> None:
    assert images.thinned(limit).ids.tolist() == [f"photo/{place}" for place in places]


def test_the_fingerprint_covers_pixels_labels_and_order(images: LabelledImages) -> None:
    assert isinstance(images.pictures, np.ndarray)
    one_pixel = images.pictures.copy()
    one_pixel[9, 5, 8, 2] ^= 1
    one_label = images.labels.copy()
    one_label[4] = 3
    others = {
        _labelled(one_pixel, images.labels).fingerprint,
        _labelled(images.pictures, one_label).fingerprint,
        images.subset([1, 0, *range(2, 11)]).fingerprint,
        images.subset(range(10)).fingerprint,
    }
    assert len(others) == 4
    assert images.fingerprint not in others
    assert _labelled(images.pictures.copy(), images.labels).fingerprint == images.fingerprint


def test_pixels_of_another_shape_have_another_digest() -> None:
    pixels = np.arange(12, dtype=np.uint8)
    assert array_digests(pixels.reshape(1, 3, 4)) != array_digests(pixels.reshape(1, 4, 3))


def test_preprocessing_changes_the_content_key_but_not_the_fingerprint(
    images: LabelledImages,
) -> None:
    smaller = images.with_preprocess(ImagePreprocess(height=4, width=4))
    assert smaller[0][0].shape == (3, 4, 4)
    assert smaller.fingerprint == images.fingerprint
    assert smaller.content_key != images.content_key


def test_other_ids_change_the_content_key(images: LabelledImages) -> None:
    renamed = dataclasses.replace(images, ids=np.char.add(images.ids, "b"))
    assert renamed.content_key != images.content_key


def test_labels_of_another_number_are_refused(images: LabelledImages) -> None:
    with pytest.raises(ShapeError, match="11 pictures come with 10 labels"):
        dataclasses.replace(images, labels=images.labels[:10])


def test_an_empty_set_is_refused(images: LabelledImages) -> None:
    with pytest.raises(DataError, match="there are no images"):
        images.subset([])
