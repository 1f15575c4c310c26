"""Evaluation of exits from plain arrays, without a model."""

import offramp.statistics_extra  # noqa: F401  (first, so that its error names the extra)
from offramp.evaluation.absence import Absence, AbsenceRow, compare_absence
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
    "Absence",
    "AbsenceRow",
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
    "compare_absence",
    "tradeoff",
    "verdict",
]
