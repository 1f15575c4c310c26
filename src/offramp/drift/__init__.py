"""Drift: test whether the exit mix or the disagreement with the final exit has changed."""

from offramp.drift.reference import DependenceWarning
from offramp.drift.watches import Alarm, Watch, watch

__all__ = ["Alarm", "DependenceWarning", "Watch", "watch"]
