"""Preprocessing in numpy and pillow: the one implementation for training and runtime."""

from offramp.preprocess.image import Deviation, ImagePreprocess, Mean

__all__ = ["Deviation", "ImagePreprocess", "Mean"]
