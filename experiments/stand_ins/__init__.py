"""Synthetic files in the layouts of the paper's data sets, to try everything without these."""
