"""Outputs with times that are easy to add up, and policies on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of
Policy = Callable[..., ExitPolicy]


@pytest.fixture
def outputs() -> ExitOutputs:
    """Four samples: the first exit is sure of two and right on one, the second right on three."""
    made: ExitOutputs = any_outputs(
        outputs=np.eye(2)[[[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]],
        labels=[0, 0, 0, 0],
        stage_flops=[400, 300, 1300],
        branch_flops=[100, 50, 0],
        stage_ms=[4.0, 3.0, 13.0],
        branch_ms=[1.0, 0.5, 0.0],
        scores=[[0.9, 0.1, 0.9, 0.1], [1.0, 0.9, 1.0, 0.1], [1.0, 1.0, 1.0, 1.0]],
    )
    return made


@pytest.fixture
def policy() -> Policy:
    def make(*thresholds: float | None) -> ExitPolicy:
        names = (*(f"exit {exit}" for exit in range(len(thresholds))), "final")
        return ExitPolicy(score=find_score("given"), thresholds=thresholds, names=names)

    return make
