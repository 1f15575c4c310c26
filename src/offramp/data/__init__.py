"""Data sets: the kinds of a plan, and data sets of users."""

from typing import Annotated

from pydantic import Field

from offramp.data.crowds import Disco
from offramp.data.drawing import HeldOut, RandomSplit
from offramp.data.given import as_samples
from offramp.data.images import (
    Cifar,
    FashionMNIST,
    ForeignFolder,
    ForeignPictures,
    ImageFolder,
    ImageTable,
    TinyImageNet,
)
from offramp.data.python_file import PythonData
from offramp.data.samples import Batch, Samples
from offramp.data.sounds import Gtzan, SoundFolder, SoundTable, SpeechCommands
from offramp.data.splits import Splits

DataSpec = Annotated[
    FashionMNIST
    | Cifar
    | TinyImageNet
    | ImageFolder
    | ImageTable
    | SoundFolder
    | SoundTable
    | SpeechCommands
    | Gtzan
    | Disco
    | PythonData,
    Field(discriminator="kind"),
]
"""Any kind of data a plan may name."""

__all__ = [
    "Batch",
    "Cifar",
    "DataSpec",
    "Disco",
    "FashionMNIST",
    "ForeignFolder",
    "ForeignPictures",
    "Gtzan",
    "HeldOut",
    "ImageFolder",
    "ImageTable",
    "PythonData",
    "RandomSplit",
    "Samples",
    "SoundFolder",
    "SoundTable",
    "SpeechCommands",
    "Splits",
    "TinyImageNet",
    "as_samples",
]
