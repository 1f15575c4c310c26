"""Preprocessing in numpy and pillow: the one implementation for training and runtime."""

from typing import Annotated

from pydantic import Field

from offramp.preprocess.image import (
    Deviation,
    ImagePreprocess,
    Mean,
    Picture,
    PixelSettings,
    Size,
    decode_image,
)
from offramp.preprocess.sound import decode_sound
from offramp.preprocess.spectrogram import SpectrogramPreprocess

Preprocess = Annotated[ImagePreprocess | SpectrogramPreprocess, Field(discriminator="kind")]
"""Preprocessing of a picture or a sound; `kind` says of which."""

__all__ = [
    "Deviation",
    "ImagePreprocess",
    "Mean",
    "Picture",
    "PixelSettings",
    "Preprocess",
    "Size",
    "SpectrogramPreprocess",
    "decode_image",
    "decode_sound",
]
