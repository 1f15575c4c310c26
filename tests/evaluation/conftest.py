"""A small comparison with known answers, and random outputs of three exits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.evaluation import TrialOutputs
from offramp.outputs import ExitOutputs

Make = Callable[..., TrialOutputs]


def logits_of(right: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """Logits (N, 3) that answer the label where `right`, and the next class elsewhere."""
    answers = np.where(right, labels, (labels + 1) % 3)
    return np.eye(3, dtype=np.float32)[answers]


@pytest.fixture
def make_trials() -> Make:
    def make(
        shares: dict[tuple[str, str, str], list[float]],
        *,
        samples: int = 40,
        final: float = 0.9,
        **changes: Any,
    ) -> TrialOutputs:
        """Trials with exactly these shares of right answers per (cut, label, kind) and seed."""
        random = np.random.default_rng(5)
        labels = random.integers(0, 3, samples)

        def answers(share: float) -> NDArray[np.float32]:
            right = random.permutation(samples) < round(share * samples)
            return logits_of(right, labels)

        rows = [(*key, seed, share) for key, of in shares.items() for seed, share in enumerate(of)]
        given: dict[str, Any] = {
            "outputs": np.stack([answers(row[-1]) for row in rows]),
            "final": answers(final),
            "labels": labels,
            "cuts": [row[0] for row in rows],
            "branches": [row[1] for row in rows],
            "kinds": [row[2] for row in rows],
            "seeds": [row[3] for row in rows],
            "params": [len(row[1]) for row in rows],
            "branch_flops": [{"slvit": 2_000, "conv": 5_000}.get(row[1], 1_000) for row in rows],
            "cut_names": ["first", "second"],
            "stage_flops": [10_000, 20_000, 70_000],
        }
        return TrialOutputs(**(given | changes))

    return make


@pytest.fixture
def trials(make_trials: Make) -> TrialOutputs:
    return make_trials(
        {
            ("first", "slvit", "slvit"): [0.60, 0.70, 0.65],
            ("first", "conv", "conv"): [0.50, 0.55, 0.60],
            ("second", "slvit", "slvit"): [0.80, 0.85, 0.75],
            ("second", "conv", "conv"): [0.55, 0.50, 0.60],
        }
    )


@pytest.fixture(scope="session")
def make() -> Callable[..., ExitOutputs]:
    """Sizes are all different, costs repeat and scores tie."""

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
