"""From a picture to the array a backbone reads, in numpy and pillow.

The one implementation: training, evaluation and the torch-free runtime all call it, and the spec
is stored with the model.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveInt, model_validator

from offramp.errors import ShapeError
from offramp.spec import Spec

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class ImagePreprocess(Spec):
    """Resize, then scale to [0, 1], then subtract `mean` and divide by `std` per channel.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        channels: 3 repeats a grey image or drops alpha; 1 converts to grey.
        crop: None stretches the image to the size. A share (0, 1] scales the image so that the
            result covers this share of its shorter side, then cuts out the centre.
        interpolation: Pillow's filter of this name, with its antialiasing.
        mean: One number per channel, on the [0, 1] scale.
        std: One number per channel, on the [0, 1] scale.
    """

    kind: Literal["image"] = "image"
    height: PositiveInt
    width: PositiveInt
    channels: Literal[1, 3] = 3
    crop: float | None = Field(default=None, gt=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} numbers, "
                f"but there are {self.channels} channels"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    def resize(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize one image, a pillow image or (H, W) or (H, W, C): to (height, width, channels).

        Raises:
            ShapeError: The array is not uint8 or has no image's shape.
        """
        picture = _as_picture(image).convert("L" if self.channels == 1 else "RGB")
        box = None
        if self.crop is not None:
            shorter = self.crop * min(picture.width / self.width, picture.height / self.height)
            width, height = shorter * self.width, shorter * self.height
            left, top = (picture.width - width) / 2, (picture.height - height) / 2
            box = (left, top, left + width, top + height)
        resized = picture.resize((self.width, self.height), _FILTERS[self.interpolation], box)
        return np.asarray(resized, dtype=np.uint8).reshape(self.height, self.width, self.channels)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale and standardise: uint8 (..., H, W, C) to float32 (..., C, H, W)."""
        mean, std = np.float32(self.mean), np.float32(self.std)
        scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
        """One image to float32 (C, H, W)."""
        return self.normalise(self.resize(image))

    def batch(self, images: Sequence[Image.Image | NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Several images to float32 (B, C, H, W)."""
        return self.normalise(np.stack([self.resize(image) for image in images]))


def _as_picture(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ShapeError(
            f"an image is uint8 of shape (H, W) or (H, W, C), got {image.dtype} {image.shape}. "
            "Scale floats to 0..255 and put channels last."
        )
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        raise ShapeError(
            f"an image has 1, 3 or 4 channels on its last axis, got shape {image.shape}. "
            "Put channels last."
        )
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
