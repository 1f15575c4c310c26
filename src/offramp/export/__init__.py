"""Export of a model with exits: from torch modules to files that run without torch."""
