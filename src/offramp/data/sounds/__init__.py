"""Sounds as samples: files by class, and published data sets."""

from offramp.data.sounds.folder import SoundFolder
from offramp.data.sounds.gtzan import Gtzan
from offramp.data.sounds.speech_commands import SpeechCommands

__all__ = ["Gtzan", "SoundFolder", "SpeechCommands"]
