"""Sound files in one folder per class."""

from typing import Literal

from offramp.data.class_folders import ClassFolders
from offramp.data.sounds.files import ListedSounds


class SoundFolder(ListedSounds, ClassFolders):
    """Sound files as root/SPLIT/CLASS/name.wav, or root/CLASS/name.wav with `split`."""

    kind: Literal["sound_folder"] = "sound_folder"
