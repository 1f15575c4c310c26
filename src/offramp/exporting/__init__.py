"""Exporting: from a trained model to a bundle, with every graph checked before it is written."""

from offramp.exporting.writing import export

__all__ = ["export"]
