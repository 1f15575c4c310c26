"""What the answers of the exits show; it reads plain arrays, never a model."""

from offramp.evaluation.tradeoff import ExitPoint, Tradeoff, tradeoff
from offramp.evaluation.trials import TrialOutputs

__all__ = ["ExitPoint", "Tradeoff", "TrialOutputs", "tradeoff"]
