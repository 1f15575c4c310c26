"""From a picture to the array that a backbone reads, in numpy and pillow.

Training, evaluation and the torch-free runtime all use this implementation, and its settings are
stored with the model.
"""

import io
from collections.abc import Sequence
from numbers import Integral
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from offramp.errors import DataError, ShapeError
from offramp.spec import Spec

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

Picture = bytes | Image.Image | NDArray[np.uint8]
"""A file's content, a pillow image, or pixels (H, W) or (H, W, C)."""

Mean = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Mean of one channel on the [0, 1] scale; 123.7 of 255 is refused."""

Deviation = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]
"""Standard deviation of one channel on the [0, 1] scale, not 0."""


def _sides(given: Any) -> Any:
    """Check one side or two; refuse anything else in one sentence."""
    sides = given if isinstance(given, tuple | list) else (given, given)
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) >= 1 for side in sides):
        raise ValueError(f"give one number of pixels, or [height, width], not {given!r}")
    return tuple(map(int, sides)) if isinstance(given, tuple | list) else int(given)


Size = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], BeforeValidator(_sides)]
"""In pixels: one side, or height and width."""


def decode_image(content: bytes, *, exif: bool = True) -> Image.Image:
    """The picture in a file's bytes: its first frame or page.

    Colour profiles are ignored: pixel values are taken as they are stored.

    Args:
        content: Content of a file in any format that pillow reads.
        exif: Whether to turn the picture by its EXIF orientation. Pillow always turns TIFF.

    Raises:
        DataError: The content is empty or not a picture.
        Exception: The picture is damaged; Pillow's decoders raise many kinds.
    """
    if not content:
        raise DataError("it is empty")
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise DataError("its content is not a picture of a known format") from error
    picture.load()
    return ImageOps.exif_transpose(picture) if exif else picture


class PixelSettings(Spec):
    """How pixels of a picture are chosen and scaled, for any size of the result.

    Attributes:
        channels: 3 repeats a grey image or drops alpha; 1 converts to grey before anything else.
        resize_to: Two steps. A number is torchvision's `Resize(number)`: the shorter side becomes
            this long; a pair is `Resize((height, width))`. Then the centre is cut out; if the
            picture is smaller than that, it gets a black border.
        crop: One step, if `resize_to` is None. None stretches the image to the size. A share
            (0, 1] scales the image so that the result covers this share of its shorter side, then
            cuts out the centre.
        interpolation: Pillow's filter of this name, with its antialiasing.
        exif: Turn a file's picture as its EXIF orientation says; images in memory stay as they are.
        mean: One number per channel, on the [0, 1] scale.
        std: One number per channel, on the [0, 1] scale.
    """

    kind: str
    channels: Literal[1, 3] = 3
    resize_to: Size | None = None
    crop: float | None = Field(default=None, gt=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    exif: bool = True
    mean: tuple[Mean, ...] = (0.5, 0.5, 0.5)
    std: tuple[Deviation, ...] = (0.5, 0.5, 0.5)

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} numbers, but channels is "
                f"{self.channels}. Give one number per channel, those that the backbone was "
                "trained with"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_resize(self) -> Self:
        if self.resize_to is not None and self.crop is not None:
            raise ValueError(
                "resize_to and crop are two ways to choose what is kept of a picture. Give "
                "resize_to to resize and then cut out the centre, as torchvision does, or crop to "
                "keep a centred share of the picture"
            )
        return self


class ImagePreprocess(PixelSettings):
    """Resize and crop, then scale to [0, 1], then subtract `mean` and divide by `std` per channel.

    With `resize_to` the result has the bits of torchvision's `Resize`, `CenterCrop`, `ToTensor`
    and `Normalize` on pillow images.

    Attributes:
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
    """

    kind: Literal["image"] = "image"
    height: PositiveInt
    width: PositiveInt

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the result, (C, H, W)."""
        return self.channels, self.height, self.width

    def with_shorter_side(self, side: int) -> Self:
        """The same part of a picture at another size, whose shorter side has this many pixels."""

        def scaled(pixels: int) -> int:
            return max(1, round(pixels * side / min(self.height, self.width)))

        changed: dict[str, Any] = {"height": scaled(self.height), "width": scaled(self.width)}
        if isinstance(self.resize_to, tuple):
            changed["resize_to"] = tuple(map(scaled, self.resize_to))
        elif self.resize_to is not None:
            changed["resize_to"] = scaled(self.resize_to)
        return self.model_copy(update=changed)

    def resize(self, image: Picture) -> NDArray[np.uint8]:
        """Resize and crop one image: to (height, width, channels).

        Raises:
            DataError: It is bytes that are not a picture.
            ShapeError: It is not uint8 of an image's shape, or a picture of more than 8 bits.
        """
        if isinstance(image, bytes):
            image = decode_image(image, exif=self.exif)
        picture = _in_mode(_as_picture(image), self.channels)
        kept = self._in_one_step(picture) if self.resize_to is None else self._in_two_steps(picture)
        pixels = np.asarray(kept, dtype=np.uint8).reshape(self.height, self.width, -1)
        return np.broadcast_to(pixels, (self.height, self.width, self.channels))

    def _in_one_step(self, picture: Image.Image) -> Image.Image:
        size = self.width, self.height
        return picture.resize(size, _FILTERS[self.interpolation], self._box(picture))

    def _in_two_steps(self, picture: Image.Image) -> Image.Image:
        """Resize, round to bytes, and cut out the centre, with torchvision's rounding of places."""
        size = _resized(picture.size, self.resize_to)
        if size != picture.size:
            picture = picture.resize(size, _FILTERS[self.interpolation])
        left, top = _first(picture.width, self.width), _first(picture.height, self.height)
        return picture.crop((left, top, left + self.width, top + self.height))

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
                f"{pixels.dtype} {pixels.shape}. Call `resize` first to get such pixels."
            )
        values = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        values /= np.float32(255)
        values -= np.array(self.mean, np.float32)[:, None, None]
        values /= np.array(self.std, np.float32)[:, None, None]
        return values

    def __call__(self, image: Picture) -> NDArray[np.float32]:
        """One image, or the bytes of a file, to float32 (C, H, W)."""
        return self.normalise(self.resize(image))

    def batch(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        """Several images to float32 (B, C, H, W)."""
        values = np.empty((len(images), self.channels, self.height, self.width), np.float32)
        for row, image in enumerate(images):  # one by one, which stays in the processor's cache
            values[row] = self(image)
        return values


def _resized(size: tuple[int, int], wanted: Size | None) -> tuple[int, int]:
    """Width and height after torchvision's `Resize(wanted)` of a picture of this width and height.

    Integers, rounded down, as there.
    """
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    if wanted is None:
        return size
    longer = int(wanted * max(size) / min(size))
    return (wanted, longer) if size[0] <= size[1] else (longer, wanted)


def _first(there: int, wanted: int) -> int:
    """Where torchvision's `CenterCrop` begins along one axis; below 0 if it adds a border.

    Two roundings: half to even if it cuts, and down if it adds a border.
    """
    return -((wanted - there) // 2) if there < wanted else round((there - wanted) / 2)


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    """Grey, or red, green and blue; grey stays grey, since all three would be resized alike."""
    if picture.mode == "L":
        return picture
    if "transparency" in picture.info:  # pillow would warn that it is dropped
        picture = picture.copy()
        del picture.info["transparency"]
    colour = picture.convert("RGB")
    return colour.convert("L") if channels == 1 else colour


def _as_picture(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # pillow would clip their values to 0..255
            raise ShapeError(
                f"a picture of mode {image.mode} has more than 8 bits per channel, and there is no "
                "standard way to scale it. Save it with 8 bits per channel."
            )
        return image
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ShapeError(
            f"an image must be uint8 of shape (H, W) or (H, W, C), got {image.dtype} "
            f"{image.shape}. Scale floats to 0..255 and put channels last."
        )
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        raise ShapeError(
            f"an image must have 1, 3 or 4 channels on its last axis, got shape {image.shape}. "
            "Put channels last."
        )
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
