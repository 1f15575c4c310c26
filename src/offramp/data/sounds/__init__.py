"""Sounds as samples: files by class, and published data sets."""

from offramp.data.sounds.folder import SoundFolder

__all__ = ["SoundFolder"]
