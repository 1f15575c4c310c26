"""Calibration: choose exit thresholds for a promise, a budget or a deadline."""

import offramp.statistics_extra  # noqa: F401  (first, so that its error names the extra)
from offramp.calibration.calibrate import (
    Calibration,
    Tried,
    calibrate,
    calibration_of,
    calibrations,
)
from offramp.calibration.request import Request

__all__ = ["Calibration", "Request", "Tried", "calibrate", "calibration_of", "calibrations"]
