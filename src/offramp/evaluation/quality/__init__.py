"""Quality of exits: how well calibrated, how far from the oracle, and whom a policy costs most."""

from offramp.evaluation.quality.auroc import auroc, nothing_lost
from offramp.evaluation.quality.budgets import BudgetPoint
from offramp.evaluation.quality.exits import ExitQuality
from offramp.evaluation.quality.mix import MixRow, PolicyQuality
from offramp.evaluation.quality.oracle import OracleCurve, oracle_curve
from offramp.evaluation.quality.quality import Quality, quality
from offramp.evaluation.quality.reliability import Reliability, reliability

__all__ = [
    "BudgetPoint",
    "ExitQuality",
    "MixRow",
    "OracleCurve",
    "PolicyQuality",
    "Quality",
    "Reliability",
    "auroc",
    "nothing_lost",
    "oracle_curve",
    "quality",
    "reliability",
]
