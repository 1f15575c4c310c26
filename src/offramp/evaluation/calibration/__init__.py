"""Calibration: thresholds from outputs, for a promise, a budget or a deadline."""
