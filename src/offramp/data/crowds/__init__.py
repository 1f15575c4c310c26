"""Crowds as samples: pictures and sounds with the number of people, and maps of where they are."""

from offramp.data.crowds.degradation import Degradation
from offramp.data.crowds.disco import Disco
from offramp.data.crowds.source import CrowdSource

__all__ = ["CrowdSource", "Degradation", "Disco"]
