"""What the answers of the exits show; it reads plain arrays, never a model."""

from offramp.evaluation.compare import compare
from offramp.evaluation.comparison import BranchRow, Comparison, PairedDifference
from offramp.evaluation.exit_mix import ExitMix, ExitShare, fixed_threshold
from offramp.evaluation.intervals import Bootstrap, Interval
from offramp.evaluation.rivals import Duel, Rival, RivalRow
from offramp.evaluation.tradeoff import ExitPoint, Tradeoff, tradeoff
from offramp.evaluation.trials import TrialOutputs
from offramp.evaluation.verdict import verdict
from offramp.policy.scores import max_softmax

__all__ = [
    "Bootstrap",
    "BranchRow",
    "Comparison",
    "Duel",
    "ExitMix",
    "ExitPoint",
    "ExitShare",
    "Interval",
    "PairedDifference",
    "Rival",
    "RivalRow",
    "Tradeoff",
    "TrialOutputs",
    "compare",
    "fixed_threshold",
    "max_softmax",
    "tradeoff",
    "verdict",
]
