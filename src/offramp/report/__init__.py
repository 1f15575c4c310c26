"""Figures and the HTML page that show what the evaluation found."""

from offramp.report.figures import plot_differences, plot_tradeoff, plot_training
from offramp.report.inputs import Curve, Picture, ReportInputs
from offramp.report.page import write_report

__all__ = [
    "Curve",
    "Picture",
    "ReportInputs",
    "plot_differences",
    "plot_tradeoff",
    "plot_training",
    "write_report",
]
