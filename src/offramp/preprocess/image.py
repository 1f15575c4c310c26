"""From a picture to the array a backbone reads, in numpy and pillow.

The one implementation: training, evaluation and the torch-free runtime all call it, and the spec
is stored with the model.
"""

import io
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, PositiveInt, model_validator

from offramp.errors import DataError, ShapeError
from offramp.spec import Spec

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

Mean = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Of one channel on the [0, 1] scale, so that 123.7 of 255 is refused, not subtracted."""

Deviation = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]
"""Of one channel on the [0, 1] scale; the least keeps every result finite."""


def decode_image(content: bytes) -> Image.Image:
    """The picture in a file's bytes: its first frame, turned as its EXIF orientation says.

    Colour profiles are ignored: pixel values are taken as they are stored.

    Raises:
        DataError: The content is not that of a picture.
        Exception: It is damaged; Pillow's decoders raise many kinds.
    """
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise DataError("its content is not a picture of a known format") from error
    with picture:
        picture.load()
        return ImageOps.exif_transpose(picture)


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
    mean: tuple[Mean, ...] = (0.5, 0.5, 0.5)
    std: tuple[Deviation, ...] = (0.5, 0.5, 0.5)

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} numbers, "
                f"but there are {self.channels} channels"
            )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the result, (C, H, W)."""
        return self.channels, self.height, self.width

    def resize(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize one image, a pillow image or (H, W) or (H, W, C): to (height, width, channels).

        Raises:
            ShapeError: It is not uint8 of an image's shape, or a picture of more than 8 bits.
        """
        picture = _as_picture(image)
        grey = self.channels == 1 or picture.mode == "L"  # grey to 3 channels: repeated at the end
        resized = picture.convert("L" if grey else "RGB").resize(
            (self.width, self.height), _FILTERS[self.interpolation], self._box(picture)
        )
        pixels = np.asarray(resized, dtype=np.uint8).reshape(self.height, self.width, -1)
        return np.broadcast_to(pixels, (self.height, self.width, self.channels))

    def _box(self, picture: Image.Image) -> tuple[float, float, float, float] | None:
        """The part of the picture that is kept: left, top, right, bottom in its pixels."""
        if self.crop is None:
            return None
        scale = self.crop * min(picture.width / self.width, picture.height / self.height)
        width, height = scale * self.width, scale * self.height
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        return left, top, left + width, top + height

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale and standardise: uint8 (..., H, W, C) to float32 (..., C, H, W).

        Raises:
            ShapeError: The pixels are not uint8, or have another number of channels.
        """
        if pixels.dtype != np.uint8 or pixels.shape[-1] != self.channels:
            raise ShapeError(
                f"pixels must be uint8 with {self.channels} channels on the last axis, got "
                f"{pixels.dtype} {pixels.shape}. Call `resize` first, which makes them so."
            )
        values = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        values /= np.float32(255)
        values -= np.array(self.mean, np.float32)[:, None, None]
        values /= np.array(self.std, np.float32)[:, None, None]
        return values

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
        """One image to float32 (C, H, W)."""
        return self.normalise(self.resize(image))

    def batch(self, images: Sequence[Image.Image | NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Several images to float32 (B, C, H, W)."""
        values = np.empty((len(images), self.channels, self.height, self.width), np.float32)
        for row, image in enumerate(images):  # one by one, which stays in the processor's cache
            values[row] = self(image)
        return values


def _as_picture(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # pillow would clip their values to 0..255
            raise ShapeError(
                f"a picture of mode {image.mode} has more than 8 bits per channel, and how to "
                "scale it is not ours to guess. Save it with 8 bits per channel."
            )
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
