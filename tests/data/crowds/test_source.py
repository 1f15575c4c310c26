from pathlib import Path
from typing import cast

import numpy as np
import pytest
import scipy.io
from torch import Tensor

from offramp.data import Disco, Samples
from offramp.data.crowds import CrowdSource
from offramp.errors import DataError, ShapeError


def of(crowds: Path, size: tuple[int, int] = (32, 48)) -> Samples:
    return Disco(root=crowds, image_size=size).load().train


def maps_of(samples: Samples) -> Tensor:
    return cast("CrowdSource", samples.source).maps(samples.rows)


def test_a_density_map_adds_up_its_part_of_the_published_map(crowds: Path) -> None:
    samples = of(crowds, (56, 80))
    assert samples.ids is not None
    for name, found in zip(samples.ids, maps_of(samples), strict=True):
        published = scipy.io.loadmat(crowds / f"density/train/{name}.mat")["map"]
        blocks = published.reshape(7, 8, 10, 8).sum((1, 3))
        assert np.allclose(found, blocks, rtol=1e-6)


@pytest.mark.parametrize("size", [(32, 48), (24, 104), (576, 1024)])
def test_the_sum_of_a_map_is_the_count_at_any_size(crowds: Path, size: tuple[int, int]) -> None:
    samples = of(crowds, size)
    maps = maps_of(samples)
    assert maps.shape == (6, size[0] // 8, size[1] // 8)
    assert cast("CrowdSource", samples.source).map_shape == maps.shape[1:]
    assert np.allclose(maps.double().sum((1, 2)), samples.targets, rtol=1e-6)


def test_dots_keep_their_number_in_a_map(crowds: Path) -> None:
    dots = np.zeros((56, 80), np.uint8)
    dots[0, 0], dots[55, 79], dots[20, 31] = 2, 1, 4
    scipy.io.savemat(crowds / "density/train/train_0000.mat", {"map": dots})
    found = maps_of(of(crowds, (56, 80)))[0].double()
    assert found.sum().item() == pytest.approx(7, rel=1e-6)
    assert found[0, 0] == pytest.approx(2)
    assert (found[1:4, 3:5] > 0).all()  # the cells that 15 x 15 pixels around (20, 31) touch
    assert (found > 0).sum() == 1 + 1 + 6


def test_maps_follow_a_subset(crowds: Path) -> None:
    samples = of(crowds)
    assert np.array_equal(maps_of(samples.subset([4, 1])), maps_of(samples)[[4, 1]])


def test_a_size_that_does_not_divide_is_refused(crowds: Path) -> None:
    with pytest.raises(ShapeError, match="32 x 50 pixels cannot be divided evenly"):
        maps_of(of(crowds, (32, 50)))


def test_a_map_that_changed_is_refused(crowds: Path) -> None:
    samples = of(crowds)
    scipy.io.savemat(crowds / "density/train/train_0002.mat", {"map": np.ones((56, 80))})
    with pytest.raises(DataError, match=r"train_0002.mat has changed"):
        maps_of(samples)
