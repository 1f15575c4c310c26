"""Sounds as samples: files by class or from a table, and published data sets."""

from offramp.data.sounds.folder import SoundFolder
from offramp.data.sounds.gtzan import Gtzan
from offramp.data.sounds.speech_commands import SpeechCommands
from offramp.data.sounds.table import SoundTable

__all__ = ["Gtzan", "SoundFolder", "SoundTable", "SpeechCommands"]
