"""How sure an answer is, from its logits alone."""

import numpy as np
from numpy.typing import NDArray


def max_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """The largest softmax probability, (..., N) in float64 from logits (..., N, K)."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    scores: NDArray[np.float64] = 1.0 / np.exp(wide - top).sum(axis=-1)
    return scores
