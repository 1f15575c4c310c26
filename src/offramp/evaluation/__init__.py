"""Evaluation of exits from plain arrays, without a model."""

from offramp.evaluation.comparison import Comparison, compare
from offramp.evaluation.intervals import Interval
from offramp.evaluation.rows import (
    BranchRow,
    FailedBranch,
    PairedDifference,
    Rival,
    RivalDifference,
    RivalRow,
)
from offramp.evaluation.sentences import verdict
from offramp.evaluation.tradeoff import ExitPoint, Tradeoff, tradeoff
from offramp.evaluation.trials import FailedTrial, TrialOutputs

__all__ = [
    "BranchRow",
    "Comparison",
    "ExitPoint",
    "FailedBranch",
    "FailedTrial",
    "Interval",
    "PairedDifference",
    "Rival",
    "RivalDifference",
    "RivalRow",
    "Tradeoff",
    "TrialOutputs",
    "compare",
    "tradeoff",
    "verdict",
]
