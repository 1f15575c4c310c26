"""PictureSettings: what a plan says about how picture files become the backbone's input."""

from typing import Any

from pydantic import model_validator

from offramp.preprocess import Deviation, ImagePreprocess, Mean, PixelSettings, Preprocess, Size

_USUAL_SHARE = 0.875  # 224 of 256


class PictureSettings(PixelSettings):
    """How picture files are read, the same for every kind of data that has them.

    Left as they are, the settings are torchvision's usual evaluation transforms with the constants
    of ImageNet: `Resize(256)`, `CenterCrop(224)`, `ToTensor`, `Normalize`, bit for bit on pictures
    that EXIF does not turn. If neither `resize_to` nor `crop` is given, `resize_to` is written
    down as the number of which `image_size` is 7/8, or as `image_size` itself if that is a pair.

    Attributes:
        image_size: What the backbone reads, in pixels: the side of a square, or height and width.
        mean: One number per channel, on the [0, 1] scale.
        std: One number per channel, on the [0, 1] scale.
    """

    image_size: Size = 224
    mean: tuple[Mean, ...] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, ...] = (0.229, 0.224, 0.225)

    @model_validator(mode="before")
    @classmethod
    def _usual_resize(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "resize_to" in given or "crop" in given:
            return given
        size = given.get("image_size", cls.model_fields["image_size"].default)
        sides = size if isinstance(size, tuple | list) else [size]
        if len(sides) > 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
            return given  # the field itself says what is wrong
        return {**given, "resize_to": size if len(sides) == 2 else round(size / _USUAL_SHARE)}

    @property
    def inputs(self) -> tuple[Preprocess, ...]:
        """Preprocessing of each input of the backbone."""
        return (self.preprocess,)

    @property
    def preprocess(self) -> ImagePreprocess:
        """Preprocessing of a picture."""
        size = self.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        shared = {name: getattr(self, name) for name in PixelSettings.model_fields}
        return ImagePreprocess(**{**shared, "kind": "image"}, height=height, width=width)
