"""Drift: a test whether exit mix or disagreement with the final exit left the reference."""

from offramp.drift.alarm import Alarm
from offramp.drift.watch import Watch, watch

__all__ = ["Alarm", "Watch", "watch"]
