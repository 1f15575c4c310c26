import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from offramp.data.crowds import Degradation
from offramp.errors import PlanError

HEIGHT, WIDTH = 60, 90
GREY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def values(
    degradation: Degradation, name: str = "a", pixels: NDArray[np.uint8] = GREY
) -> NDArray[np.uint8]:
    return np.asarray(degradation(Image.fromarray(pixels), name))


def test_a_fixed_brightness_is_pillows() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8))
    expected = np.asarray(ImageEnhance.Brightness(picture).enhance(0.3))
    assert np.array_equal(np.asarray(Degradation(brightness=0.3)(picture, "a")), expected)


def test_a_random_brightness_is_uniform_from_0_to_its_limit() -> None:
    degradation = Degradation(brightness_up_to=0.5)
    means = np.array([values(degradation, f"{n}").mean() / 128 for n in range(400)])
    assert means.max() < 0.5
    assert means.mean() == pytest.approx(0.25, abs=0.03)
    assert means.std() == pytest.approx(0.5 / 12**0.5, abs=0.02)


def test_noise_has_its_deviation_and_is_rounded_and_clipped() -> None:
    noisy = values(Degradation(noise=25)).astype(float) - 128
    assert noisy.std() == pytest.approx(25, rel=0.03)
    assert abs(noisy.mean()) < 1
    dark = values(Degradation(noise=50), pixels=np.zeros_like(GREY))
    assert (dark == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_noise_comes_after_brightness() -> None:
    noisy = values(Degradation(brightness=0.5, noise=10)).astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.05)
    assert noisy.mean() == pytest.approx(64, abs=1)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_occlusion_covers_one_rectangle_of_its_share(share: float) -> None:
    black = (values(Degradation(occlusion=share)) == 0).all(axis=2)
    rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
    assert black[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert black.mean() == pytest.approx(share, abs=0.02)
    assert len(columns) / len(rows) == pytest.approx(WIDTH / HEIGHT, rel=0.05)


def test_a_whole_occlusion_leaves_nothing() -> None:
    assert not values(Degradation(occlusion=1)).any()


def test_the_rectangle_is_anywhere() -> None:
    found = {
        tuple(np.argwhere((values(Degradation(occlusion=0.1), f"{n}") == 0).all(axis=2))[0])
        for n in range(30)
    }
    assert len({row for row, _ in found}) > 10
    assert len({column for _, column in found}) > 10


def test_draws_follow_from_seed_and_name_alone() -> None:
    degradation = Degradation(brightness_up_to=1, noise=25, occlusion=0.3)
    assert np.array_equal(values(degradation), values(degradation))
    assert not np.array_equal(values(degradation, "a"), values(degradation, "b"))
    other = degradation.model_copy(update={"seed": 1})
    assert not np.array_equal(values(degradation), values(other))


def test_each_change_has_draws_of_its_own() -> None:
    both = values(Degradation(noise=25, occlusion=0.3))
    noise = values(Degradation(noise=25))
    black = (both == 0).all(axis=2)
    assert np.array_equal(both[~black], noise[~black])
    assert np.array_equal(black, (values(Degradation(occlusion=0.3)) == 0).all(axis=2))


def test_two_ways_to_set_the_brightness_are_refused() -> None:
    with pytest.raises(PlanError, match="give one of them"):
        Degradation(brightness=0.5, brightness_up_to=0.5)
