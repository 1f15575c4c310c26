import io
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess

PLAIN = ImagePreprocess(height=5, width=7, mean=(0, 0, 0), std=(1, 1, 1))


def _noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [None, 0.6, 1.0])
def test_an_image_of_one_colour_stays_of_one_colour(
    interpolation: Literal["nearest", "bilinear", "bicubic"], crop: float | None
) -> None:
    spec = ImagePreprocess(
        height=5, width=7, crop=crop, interpolation=interpolation,
        mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2),
    )  # fmt: skip
    values = spec(np.full((11, 13, 3), (0, 51, 255), np.uint8))
    assert values.shape == (3, 5, 7)
    assert values.dtype == np.float32
    expected = [(0 - 0.1) / 0.5, (0.2 - 0.2) / 0.25, (1 - 0.3) / 2]
    for channel, value in zip(values, expected, strict=True):
        np.testing.assert_allclose(channel, value, atol=1e-7)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    pixels = _noise(5, 7, 3)
    np.testing.assert_array_equal(PLAIN.resize(pixels), pixels)


def test_channels_come_first_in_red_green_blue_order() -> None:
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[2, 4] = (255, 51, 0)
    values = PLAIN(pixels)
    np.testing.assert_array_equal(values[:, 2, 4], np.array([1, 0.2, 0], np.float32))
    assert values.sum() == pytest.approx(1.2)


def test_a_batch_has_the_bits_of_its_single_images() -> None:
    images: list[Image.Image | NDArray[np.uint8]]
    images = [_noise(9, 4, 3), Image.fromarray(_noise(6, 6)), _noise(20, 31, 4)]
    batch = PLAIN.batch(images)
    assert batch.shape == (3, 3, 5, 7)
    for row, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(row, PLAIN(image))


@given(height=st.integers(1, 17), width=st.integers(1, 17), seed=st.integers(0, 9))
def test_grey_gives_the_same_as_three_equal_channels(height: int, width: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(PLAIN.resize(grey), PLAIN.resize(colour))


@given(seed=st.integers(0, 99))
def test_mirroring_before_or_after_resizing_is_nearly_the_same(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    mirrored = PLAIN.resize(np.ascontiguousarray(pixels[:, ::-1])).astype(int)
    assert np.abs(mirrored - PLAIN.resize(pixels)[:, ::-1]).max() <= 1


def test_one_channel_is_the_luma_of_a_colour_image() -> None:
    spec = ImagePreprocess(height=3, width=2, channels=1, mean=(0,), std=(1,))
    values = spec(np.full((4, 4, 3), (200, 100, 50), np.uint8))
    assert values.shape == (1, 3, 2)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(values, luma / 255, atol=0.5 / 255)


def test_the_crop_is_the_centre_with_the_given_share() -> None:
    # 10 wide and 8 high; a 4x4 square over half of the shorter side is columns 3-6, rows 2-5.
    pixels = _noise(8, 10, 3)
    spec = ImagePreprocess(height=4, width=4, crop=0.5)
    np.testing.assert_array_equal(spec.resize(pixels), pixels[2:6, 3:7])


def test_a_whole_crop_of_a_square_is_the_plain_resize() -> None:
    pixels = _noise(9, 9, 3)
    sizes = {"height": 4, "width": 4}
    cropped = ImagePreprocess.model_validate({**sizes, "crop": 1.0}).resize(pixels)
    np.testing.assert_array_equal(cropped, ImagePreprocess.model_validate(sizes).resize(pixels))


def test_a_crop_does_not_distort() -> None:
    # A disc in a wide picture is still as wide as high.
    rows, columns = np.mgrid[:40, :90]
    disc = np.where((rows - 19.5) ** 2 + (columns - 44.5) ** 2 < 16**2, 255, 0).astype(np.uint8)
    resized = ImagePreprocess(height=20, width=20, crop=1.0).resize(disc)[:, :, 0] > 127
    assert resized.any(axis=0).sum() == resized.any(axis=1).sum() == 16


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pictures_of_every_8_bit_mode_are_read(mode: str) -> None:
    white = Image.new("RGB", (6, 6), (255, 255, 255))
    picture = white.convert("L").convert(mode) if mode == "LA" else white.convert(mode)
    np.testing.assert_allclose(PLAIN(picture), 1, atol=2 / 255)


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_a_picture_of_more_than_8_bits_is_refused(mode: str) -> None:
    with pytest.raises(ShapeError, match=f"mode {mode} has more than 8 bits"):
        PLAIN(Image.new(mode, (6, 6)))


def test_floats_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"uint8 of shape .* got float64 \(6, 6, 3\)"):
        PLAIN(np.ones((6, 6, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6,), (2, 6, 6, 3)])
def test_an_array_that_is_not_an_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="uint8 of shape"):
        PLAIN(np.zeros(shape, np.uint8))


def test_channels_first_is_refused_with_the_fix() -> None:
    with pytest.raises(ShapeError, match="Put channels last"):
        PLAIN(np.zeros((3, 6, 6), np.uint8))


def test_normalising_floats_is_refused() -> None:
    with pytest.raises(ShapeError, match="pixels must be uint8"):
        PLAIN.normalise(np.ones((5, 7, 3), np.float32))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mean": (0.5,)}, "mean has 1 and std 3 numbers, but channels is 3"),
        ({"channels": 1}, "mean has 3 and std 3 numbers, but channels is 1"),
        ({"crop": 0.9, "resize_to": 8}, "two ways to choose what is kept"),
        ({"resize_to": 0}, r"give one number of pixels, or \[height, width\], not 0"),
        ({"resize_to": (1, 2, 3)}, r"or \[height, width\], not \(1, 2, 3\)"),
        ({"std": (1, 0, 1)}, r"greater than or equal to (0\.000001|1e-0?6)"),
        ({"std": (1, float("inf"), 1)}, "finite number"),
        ({"mean": (0, 0, float("nan"))}, "finite number"),
        ({"mean": (123.7, 116.3, 103.5)}, "less than or equal to 1"),
        ({"crop": 1.5}, "less than or equal to 1"),
        ({"height": 0}, "greater than 0"),
        ({"interpolation": "lanczos"}, "'nearest', 'bilinear' or 'bicubic'"),
        ({"widht": 7}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ImagePreprocess.model_validate({"height": 5, "width": 7, **settings})


def test_the_least_deviation_gives_finite_values() -> None:
    spec = ImagePreprocess(height=5, width=7, mean=(0, 0.5, 1), std=(1e-6, 1e-6, 1e-6))
    assert np.isfinite(spec(_noise(5, 7, 3))).all()


def test_settings_survive_storage() -> None:
    spec = ImagePreprocess(height=5, width=7, crop=0.875, interpolation="bicubic")
    assert ImagePreprocess.model_validate_json(spec.model_dump_json()) == spec


def test_a_transparent_palette_is_dropped_without_a_warning() -> None:
    picture = Image.new("P", (7, 5), 1)
    picture.putpalette([9, 9, 9, 200, 100, 50])
    picture.info["transparency"] = bytes([0, 128])
    np.testing.assert_array_equal(PLAIN.resize(picture)[2, 3], (200, 100, 50))
    assert "transparency" in picture.info


def test_the_bytes_of_a_file_are_decoded() -> None:
    held = io.BytesIO()
    Image.fromarray(_noise(5, 7, 3)).save(held, "PNG")
    np.testing.assert_array_equal(PLAIN.resize(held.getvalue()), _noise(5, 7, 3))
    with pytest.raises(DataError, match="not a picture of a known format"):
        PLAIN(b"no picture")
    with pytest.raises(DataError, match="it is empty"):
        PLAIN(b"")
