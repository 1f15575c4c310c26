"""A frozen backbone with its branches, as a model: walk, collect, save, load."""

from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Epoch, Failed, Trial

__all__ = ["Epoch", "Failed", "MultiExit", "Trial"]
