"""Calibration: thresholds from outputs, for a promise, a budget or a deadline."""

from offramp.calibration.calibrate import calibrate, calibration_of
from offramp.calibration.calibration import Calibration, Candidate

__all__ = ["Calibration", "Candidate", "calibrate", "calibration_of"]
