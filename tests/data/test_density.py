import numpy as np
import pytest
import torch

from offramp.data.density import map_shape, maps_of, with_maps
from offramp.data.given import as_samples
from offramp.errors import DataError, ShapeError

IMAGES, COUNTS = torch.arange(10.0).reshape(5, 1, 2, 1), torch.arange(5.0)
MAPS = np.arange(30, dtype=np.float32).reshape(5, 3, 2)


def test_samples_keep_their_inputs_and_counts_beside_their_maps() -> None:
    samples = with_maps((IMAGES, COUNTS), MAPS)
    batch = samples.read([3, 1])
    assert torch.equal(batch.inputs[0], IMAGES[[3, 1]])
    assert torch.equal(batch.targets, COUNTS[[3, 1]])
    np.testing.assert_array_equal(maps_of(samples, np.array([3, 1])), MAPS[[3, 1]])
    assert map_shape(samples) == (3, 2)


def test_a_subset_has_the_maps_of_its_samples_also_if_they_are_given_for_it_alone() -> None:
    whole = with_maps((IMAGES, COUNTS), MAPS).subset([4, 2])
    alone = with_maps(as_samples((IMAGES, COUNTS)).subset([4, 2]), MAPS[[4, 2]])
    for samples in (whole, alone):
        np.testing.assert_array_equal(maps_of(samples, np.array([0, 1])), MAPS[[4, 2]])


def test_other_maps_are_other_data() -> None:
    other = MAPS.copy()
    other[2, 0, 0] += 1
    assert with_maps((IMAGES, COUNTS), MAPS).content_key == (
        with_maps((IMAGES, COUNTS), MAPS).content_key
    )
    assert with_maps((IMAGES, COUNTS), MAPS).content_key != (
        with_maps((IMAGES, COUNTS), other).content_key
    )


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(4, 3, 2\) for 5 samples"):
        with_maps((IMAGES, COUNTS), MAPS[:4])
    with pytest.raises(ShapeError, match="not arrays of numbers of one shape"):
        with_maps((IMAGES, COUNTS), [*MAPS[:4], MAPS[4, :2]])
    with pytest.raises(DataError, match="NaN or infinite"):
        with_maps((IMAGES, COUNTS), MAPS + np.float32("inf"))


def test_samples_without_maps_say_what_to_do() -> None:
    with pytest.raises(DataError, match="leave `density` out of the plan"):
        map_shape(as_samples((IMAGES, COUNTS)))
