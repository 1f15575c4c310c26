"""The dense layers that the paper puts on every image backbone (section 4.2)."""

from torch import nn

HIDDEN = 256
"""Fits the printed FLOPs of InceptionV3; the paper does not say."""
DROPOUT = 0.5
"""The paper does not say."""


def paper_top(num_features: int, num_outputs: int) -> nn.Sequential:
    """Two dense layers with dropout between: (B, num_features) to (B, num_outputs)."""
    return nn.Sequential(
        nn.Linear(num_features, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, num_outputs),
    )
