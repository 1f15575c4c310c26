"""Runtime: answers new samples from a bundle, stops early for real, and imports no torch."""
