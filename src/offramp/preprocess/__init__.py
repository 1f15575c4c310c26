"""Preprocessing in numpy and pillow: the one implementation for training and runtime."""

from offramp.preprocess.image import (
    Deviation,
    ImagePreprocess,
    Mean,
    Picture,
    PixelSettings,
    Size,
    decode_image,
)

Preprocess = ImagePreprocess
"""What makes a raw sample an input of the model; a union by `kind` once there is another."""

__all__ = [
    "Deviation",
    "ImagePreprocess",
    "Mean",
    "Picture",
    "PixelSettings",
    "Preprocess",
    "Size",
    "decode_image",
]
