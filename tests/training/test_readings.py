"""How often a user's own data set is read: reading may decode pictures, and takes long."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from offramp.data.augment import Augment
from offramp.data.item import PROBED
from offramp.errors import DataError
from offramp.evaluation.quality import quality
from offramp.multiexit.model import MultiExit

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]


class Counting:
    """A user's data set that counts how often each sample is read."""

    def __init__(self, images: Images) -> None:
        self.images, self.read = images, Counter[int]()

    def __len__(self) -> int:
        return len(self.images[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read[index] += 1
        return self.images[0][index], int(self.images[1][index])

    @property
    def times(self) -> int:
        """How often each sample was read, but for those that were probed: once more."""
        counts = Counter(self.read[index] for index in range(len(self)))
        often = min(counts)
        assert counts == {often: len(self) - PROBED, often + 1: PROBED}
        return often


@pytest.mark.parametrize(
    ("options", "train_times", "validation_times"),
    [
        ({"cache_dtype": "float32"}, 2, 2),  # labels and hash, taps
        ({"cache_dtype": "float16"}, 3, 2),  # and the scales, from up to 512 samples
        ({"cache_dtype": "float32", "augment": Augment(flip=True, views=3)}, 4, 2),  # each view
    ],
)
def test_cached_training_reads_once_for_labels_and_hash_and_once_for_taps(
    fit: Fit,
    train: Images,
    validation: Images,
    options: dict[str, Any],
    train_times: int,
    validation_times: int,
) -> None:
    data = Counting(train), Counting(validation)
    fit(train=data[0], validation=data[1], how="cached", **options)
    assert data[0].times == train_times
    assert data[1].times == validation_times


def test_answers_on_a_data_set_take_one_reading(fit: Fit, validation: Images) -> None:
    data = Counting(validation)
    outputs = fit(epochs=1).collect(data)
    assert data.times == 1
    assert outputs.labels.tolist() == validation[1].tolist()
    assert outputs.ids is None


def test_a_data_set_that_changes_under_training_is_refused(fit: Fit, train: Images) -> None:
    class Overwritten(Counting):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            image, label = super().__getitem__(index)
            return image + (index == 17 and self.read[index] > 1), label

    with pytest.raises(DataError, match="sample 17 has changed since"):
        fit(train=Overwritten(train))


class Flipping(Counting):
    """Mirrors an image with a chance of one half, as torchvision's RandomHorizontalFlip."""

    def __init__(self, images: Images) -> None:
        super().__init__(images)
        self.chance = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = super().__getitem__(index)
        return image.flip(-1) if self.chance.random() < 0.5 else image, label


def test_a_data_set_that_augments_at_random_is_refused_before_it_is_read_in_full(
    fit: Fit, train: Images
) -> None:
    data = Flipping(train)
    with pytest.raises(
        DataError, match=r"the training data .* changes its samples at random.*`aug"
    ):
        fit(train=data)
    assert data.read.total() <= 2 * PROBED


def test_a_data_set_that_is_random_in_a_few_places_is_refused(fit: Fit, train: Images) -> None:
    class RandomFrom20(Flipping):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return super().__getitem__(index) if index >= 20 else Counting(self.images)[index]

    with pytest.raises(DataError, match="at random"):
        fit(train=RandomFrom20(train))


def test_answers_on_a_random_data_set_are_refused(fit: Fit, validation: Images) -> None:
    model = fit(epochs=1)
    with pytest.raises(DataError, match="Give it the transforms of your evaluation"):
        model.collect(Flipping(validation))


def test_groups_and_clusters_of_a_data_set_reach_the_answers(fit: Fit, validation: Images) -> None:
    class Grouped(Counting):
        groups = tuple(f"site {index % 3}" for index in range(23))
        clusters = tuple(index // 2 for index in range(23))

    outputs = fit(epochs=1).collect(Grouped(validation))
    assert outputs.groups is not None
    assert outputs.clusters is not None
    assert tuple(outputs.groups) == Grouped.groups
    assert tuple(outputs.clusters) == Grouped.clusters


def test_two_sets_of_arrays_are_not_taken_for_the_same_samples(
    fit: Fit, train: Images, validation: Images
) -> None:
    model = fit(epochs=1)
    judged = quality(model.collect(train), temperatures_on=model.collect(validation))
    assert judged.temperatures_fitted_on == len(validation[1])
