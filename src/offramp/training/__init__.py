"""Training of branches on a frozen backbone."""

from offramp.training.fit import fit_branches
from offramp.training.settings import TrainOptions, TrainSettings

__all__ = ["TrainOptions", "TrainSettings", "fit_branches"]
