"""Drift: a test whether exit mix or disagreement with the final exit left the reference."""

from offramp.drift.reference import DependenceWarning
from offramp.drift.watches import Alarm, Watch, watch

__all__ = ["Alarm", "DependenceWarning", "Watch", "watch"]
