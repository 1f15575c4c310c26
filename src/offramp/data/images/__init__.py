"""Pictures as samples: in memory, in files, or shipped with the package."""

from offramp.data.images.embedded import FashionMNIST
from offramp.data.images.folder import ImageFolder
from offramp.data.images.pictures import at_size, labelled_pictures
from offramp.data.images.settings import PictureSettings

__all__ = [
    "FashionMNIST",
    "ImageFolder",
    "PictureSettings",
    "at_size",
    "labelled_pictures",
]
