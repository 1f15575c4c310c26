"""Drift: a test whether exit mix or disagreement with the final exit left the reference."""

from offramp.evaluation.drift.alarm import Alarm
from offramp.evaluation.drift.watch import Watch, watch

__all__ = ["Alarm", "Watch", "watch"]
