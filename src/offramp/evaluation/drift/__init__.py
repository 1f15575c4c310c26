"""Drift: has the exit mix, or the disagreement with the final exit, left the reference's?"""

from offramp.evaluation.drift.alarm import Alarm
from offramp.evaluation.drift.watch import Watch, watch

__all__ = ["Alarm", "Watch", "watch"]
