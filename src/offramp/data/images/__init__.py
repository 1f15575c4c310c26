"""Pictures as samples: in memory, in files, or shipped with the package."""

from offramp.data.images.cifar import Cifar
from offramp.data.images.embedded import FashionMNIST
from offramp.data.images.files import PictureFiles
from offramp.data.images.folder import ImageFolder
from offramp.data.images.foreign import ForeignFolder, ForeignPictures
from offramp.data.images.pictures import at_size, labelled_pictures
from offramp.data.images.settings import PictureSettings
from offramp.data.images.table import ImageTable
from offramp.data.images.tiny_imagenet import TinyImageNet

__all__ = [
    "Cifar",
    "FashionMNIST",
    "ForeignFolder",
    "ForeignPictures",
    "ImageFolder",
    "ImageTable",
    "PictureFiles",
    "PictureSettings",
    "TinyImageNet",
    "at_size",
    "labelled_pictures",
]
