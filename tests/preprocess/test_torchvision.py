"""With `resize_to`, pictures have the bits that torchvision's transforms give."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from offramp.preprocess import ImagePreprocess

COLOUR: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GREY: dict[str, Any] = {"mean": (0.449,), "std": (0.226,)}
SIZES = [(31, 47), (47, 31), (24, 24), (25, 90), (7, 5), (24, 25)]  # height and width


def _content(size: tuple[int, int], mode: str, form: str) -> bytes:
    """A file of a picture with both smooth areas and noise."""
    rng = np.random.default_rng(sum(size))
    steps = np.add.outer(np.arange(size[0]), np.arange(size[1]))[:, :, None] * (3, 5, 2)
    pixels = (steps + rng.integers(0, 60, (*size, 3))).clip(0, 255).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(held, form)
    return held.getvalue()


def _loaded(content: bytes) -> Image.Image:
    """As torchvision.datasets.ImageFolder loads a file."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def _torchvision(content: bytes, resize: Any, crop: Any, how: str = "bilinear") -> Any:
    chain = transforms.Compose(
        [
            transforms.Resize(resize, InterpolationMode(how)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(**COLOUR),
        ]
    )
    return chain(_loaded(content)).numpy()


def _ours(content: bytes, resize: Any, crop: tuple[int, int], how: str = "bilinear") -> Any:
    settings = {"height": crop[0], "width": crop[1], "resize_to": resize, "interpolation": how}
    return ImagePreprocess.model_validate(settings | COLOUR)(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", SIZES)
def test_files_of_any_size_become_the_same_numbers(
    size: tuple[int, int], how: str, mode: str, form: str
) -> None:
    content = _content(size, mode, form)
    ours = _ours(content, 24, (21, 21), how)
    np.testing.assert_array_equal(ours, _torchvision(content, 24, 21, how), strict=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [(20, 21), (21, 20), (17, 24), (24, 24)])
def test_the_centre_is_cut_at_the_same_pixel(size: tuple[int, int], crop: tuple[int, int]) -> None:
    content = _content(size, "RGB", "PNG")
    np.testing.assert_array_equal(_ours(content, 24, crop), _torchvision(content, 24, crop))


@pytest.mark.parametrize("crop", [(11, 12), (12, 11), (40, 7), (13, 40)])
def test_a_picture_smaller_than_the_crop_gets_the_same_black_border(crop: tuple[int, int]) -> None:
    for size in SIZES:
        content = _content(size, "RGB", "PNG")
        np.testing.assert_array_equal(_ours(content, 10, crop), _torchvision(content, 10, crop))


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_stretches_as_there(size: tuple[int, int]) -> None:
    content = _content(size, "RGB", "JPEG")
    ours = _ours(content, (13, 18), (11, 16))
    np.testing.assert_array_equal(ours, _torchvision(content, (13, 18), (11, 16)))


@pytest.mark.parametrize(
    "mode_and_form",
    ["1 PNG", "L TIFF", "LA PNG", "P PNG", "RGB TIFF", "RGBA PNG", "RGBA TIFF", "CMYK JPEG"],
)
def test_pictures_of_every_mode_become_the_same_numbers(mode_and_form: str) -> None:
    content = _content((31, 26), *mode_and_form.split())
    np.testing.assert_array_equal(_ours(content, 24, (21, 21)), _torchvision(content, 24, 21))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_one_channel_is_their_grayscale_before_the_resize(mode: str) -> None:
    content = _content((31, 26), mode, "PNG")
    chain = [
        *(transforms.Grayscale(1), transforms.Resize(24), transforms.CenterCrop(21)),
        *(transforms.ToTensor(), transforms.Normalize(**GREY)),
    ]
    ours = ImagePreprocess(height=21, width=21, channels=1, resize_to=24, **GREY)(content)
    expected: torch.Tensor = transforms.Compose(chain)(_loaded(content))
    np.testing.assert_array_equal(ours, expected.numpy(), strict=True)


def _on_its_side(form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, form, exif=exif)
    return held.getvalue()


def test_without_exif_a_picture_is_oriented_as_in_torchvision() -> None:
    content = _on_its_side("PNG")
    settings: dict[str, Any] = {"height": 21, "width": 21, "resize_to": 24, **COLOUR}
    as_stored = ImagePreprocess(**settings, exif=False)(content)
    np.testing.assert_array_equal(as_stored, _torchvision(content, 24, 21))
    assert not np.array_equal(ImagePreprocess(**settings)(content), as_stored)


def test_a_tiff_is_turned_by_pillow_with_or_without_exif() -> None:
    content = _on_its_side("TIFF")
    settings: dict[str, Any] = {"height": 21, "width": 21, "resize_to": 24, **COLOUR}
    for exif in (False, True):
        ours = ImagePreprocess(**settings, exif=exif)(content)
        np.testing.assert_array_equal(ours, _torchvision(content, 24, 21))


def test_settings_that_were_stored_give_the_same_bits() -> None:
    spec = ImagePreprocess(height=9, width=8, resize_to=(12, 11), exif=False, **COLOUR)
    again = ImagePreprocess.model_validate_json(spec.model_dump_json())
    content = _on_its_side("JPEG")
    assert again == spec
    np.testing.assert_array_equal(again(content), spec(content))
