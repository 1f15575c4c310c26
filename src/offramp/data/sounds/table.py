"""Sound files that a CSV file lists with their labels."""

from typing import Literal

from offramp.data.sounds.files import ListedSounds
from offramp.data.table import FileTable


class SoundTable(ListedSounds, FileTable):
    """Sound files listed in a CSV or TSV file."""

    kind: Literal["sound_csv"] = "sound_csv"
