"""Runs: from a plan to a folder with model, outputs and report."""
