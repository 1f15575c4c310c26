"""Figures and the HTML page that show what the evaluation found."""

from offramp.report.figures import plot_differences, plot_tradeoff, plot_training
from offramp.report.inputs import Curve, Picture, ReportInputs
from offramp.report.page import write_report
from offramp.report.quality_figures import plot_mix, plot_oracle, plot_reliability

__all__ = [
    "Curve",
    "Picture",
    "ReportInputs",
    "plot_differences",
    "plot_mix",
    "plot_oracle",
    "plot_reliability",
    "plot_tradeoff",
    "plot_training",
    "write_report",
]
