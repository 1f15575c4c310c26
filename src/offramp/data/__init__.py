"""Data sets: what a plan may name, and batches of whatever the user brings."""

from typing import Annotated

from pydantic import Field

from offramp.data.given import as_samples
from offramp.data.images import FashionMNIST, ImageFolder, RandomSplit
from offramp.data.samples import Batch, Samples
from offramp.data.splits import Splits

DataSpec = Annotated[FashionMNIST | ImageFolder, Field(discriminator="kind")]
"""Any kind of data a plan may name."""

__all__ = [
    "Batch",
    "DataSpec",
    "FashionMNIST",
    "ImageFolder",
    "RandomSplit",
    "Samples",
    "Splits",
    "as_samples",
]
