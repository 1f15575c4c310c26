"""Backbones: where they come from, and how they are cut into stages."""
