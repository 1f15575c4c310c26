"""Random outputs of three exits, sizes all different, with repeated costs and tied scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offramp.outputs import ExitOutputs

Make = Callable[..., ExitOutputs]


@pytest.fixture(scope="session")
def make() -> Make:
    def made(seed: int, *, samples: int = 41, task: Any = "classification", **changes: Any) -> Any:
        random = np.random.default_rng(seed)
        classes = 5 if task == "classification" else 1
        labels: Any = random.integers(0, 5, samples)
        outputs = random.normal(size=(3, samples, classes)).round(1)
        if task == "classification":
            outputs += np.array([0.8, 1.0, 2.0]).reshape(3, 1, 1) * np.eye(5)[labels]
        given = {
            "outputs": outputs.astype(np.float32),
            "labels": labels if task == "classification" else labels / 2,
            "task": task,
            "names": ("early", "late", "final"),
            "stage_flops": np.array([30, 20, 90]),
            "branch_flops": np.array([7, 11, 0]),
            "groups": random.integers(0, 2, samples),
        }
        return ExitOutputs(**(given | changes))

    return made
