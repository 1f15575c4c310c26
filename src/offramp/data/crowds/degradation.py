"""Degradation: darker, noisy and covered pictures, as AudioCSRNet was tested on."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import Field, NonNegativeInt, model_validator

from offramp.data.images.pictures import ImageFiles
from offramp.spec import Spec

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Degradation(Spec):
    """How pictures are made worse at their full size, before they are resized.

    First the brightness, then noise, then one black rectangle. What is random follows from `seed`
    and the name of the picture alone, and each of the three has draws of its own.

    Attributes:
        brightness: Factor of all values.
        brightness_up_to: In place of `brightness`: the factor is drawn between 0 and this.
        noise: Standard deviation of Gaussian noise on each value, of 255. The result is rounded
            and clipped.
        occlusion: Share of the area that a black rectangle covers, at a random place. It has the
            proportions of the picture.
        seed: Of everything that is drawn.
    """

    brightness: _Amount = 1.0
    brightness_up_to: _Amount | None = None
    noise: _Amount = 0.0
    occlusion: _Share = 0.0
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_brightness(self) -> Self:
        if self.brightness_up_to is not None and self.brightness != 1.0:
            raise ValueError(
                "brightness is a fixed factor and brightness_up_to a random one: give one of them"
            )
        return self

    def __call__(self, picture: Image.Image, name: str) -> Image.Image:
        """The degraded picture, in colour."""
        made = picture.convert("RGB")
        factor = self.brightness
        if self.brightness_up_to is not None:
            factor = self._draws("brightness", name).uniform(0, self.brightness_up_to)
        if factor != 1:
            made = ImageEnhance.Brightness(made).enhance(factor)
        if self.noise:
            values = np.asarray(made, np.float64)
            values = values + self._draws("noise", name).normal(scale=self.noise, size=values.shape)
            made = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
        if self.occlusion:
            self._cover(made, self._draws("occlusion", name))
        return made

    def _cover(self, picture: Image.Image, draws: np.random.Generator) -> None:
        width, height = (round(side * self.occlusion**0.5) for side in picture.size)
        left = int(draws.integers(picture.width - width + 1))
        top = int(draws.integers(picture.height - height + 1))
        picture.paste((0, 0, 0), (left, top, left + width, top + height))

    def _draws(self, what: str, name: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed} {what} {name}".encode()).digest()
        return np.random.default_rng([*digest])


@dataclass(frozen=True, eq=False, kw_only=True)
class DegradedImages(ImageFiles):
    """Pictures that are read from their files and degraded each time, always alike.

    Attributes:
        names: (N,) name of each picture.
        degradation: What is done to them; None changes nothing.
    """

    names: NDArray[np.str_]
    degradation: Degradation | None

    def __getitem__(self, index: int) -> Image.Image:
        picture = super().__getitem__(index)
        if self.degradation is None:
            return picture
        return self.degradation(picture, str(self.names[index]))
