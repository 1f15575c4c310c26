"""Data sets: what a plan may name, and batches of whatever the user brings."""

from offramp.data.embedded import FashionMNIST
from offramp.data.images import LabelledImages
from offramp.data.splits import Splits

__all__ = ["FashionMNIST", "LabelledImages", "Splits"]
