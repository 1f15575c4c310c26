"""Outputs whose risk is known: rows drawn from a pool, judged on the whole pool."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.outputs import ExitOutputs

Pool = Callable[..., ExitOutputs]
Draw = Callable[[ExitOutputs, int, int], ExitOutputs]


def rows_of(outputs: ExitOutputs, rows: NDArray[Any], **changes: Any) -> ExitOutputs:
    given: dict[str, Any] = {
        "outputs": outputs.outputs[:, rows],
        "labels": outputs.labels[rows],
        "task": outputs.task,
        "stage_flops": outputs.stage_flops,
        "branch_flops": outputs.branch_flops,
        "names": outputs.names,
        "groups": None if outputs.groups is None else outputs.groups[rows],
        "source": outputs.source,
    }
    return ExitOutputs(**(given | changes))


@pytest.fixture
def rows() -> Callable[..., ExitOutputs]:
    return rows_of


@pytest.fixture
def draw() -> Draw:
    def draw(pool: ExitOutputs, num: int, seed: int) -> ExitOutputs:
        """Rows drawn with replacement."""
        return rows_of(pool, np.random.default_rng(seed).integers(0, len(pool.labels), num))

    return draw


@pytest.fixture
def make_pool() -> Pool:
    def make(
        num: int = 3000,
        *,
        skill: tuple[float, ...] = (0.6, 1.1, 1.5),
        seed: int = 0,
        stages: tuple[int, ...] = (20, 30, 50),
        branches: tuple[int, ...] = (2, 3, 0),
        **changes: Any,
    ) -> ExitOutputs:
        """Later exits are right more often, and every exit is more confident when it is right."""
        random = np.random.default_rng(seed)
        labels = random.integers(0, 5, num)
        ease = random.standard_normal(num)
        outputs = 0.1 * random.standard_normal((len(skill), num, 5))
        for exit, mean in enumerate(skill):
            ahead = 2 * (mean + 0.8 * ease + 0.6 * random.standard_normal(num))
            other = (labels + random.integers(1, 5, num)) % 5
            outputs[exit, np.arange(num), labels] += 3 + ahead
            outputs[exit, np.arange(num), other] += 3 - ahead
        given: dict[str, Any] = {
            "outputs": outputs,
            "labels": labels,
            "stage_flops": stages,
            "branch_flops": branches,
        }
        return ExitOutputs(**(given | changes))

    return make


@pytest.fixture
def make_values() -> Pool:
    def make(num: int = 3000, *, seed: int = 0) -> ExitOutputs:
        """A regression whose early exits have larger errors where they agree less."""
        random = np.random.default_rng(seed)
        labels = random.normal(0, 3, num)
        hard = random.gamma(0.7, 1.0, num)
        spread = np.array([0.5, 0.25, 0.1])[:, np.newaxis] * hard
        values = (
            labels + spread * random.standard_normal((3, num)) + 0.02 * random.normal(size=(3, num))
        )
        return ExitOutputs(
            outputs=values[:, :, np.newaxis].astype(np.float32),
            labels=labels,
            task="regression",
            stage_flops=np.array([20, 30, 50]),
            branch_flops=np.array([2, 3, 0]),
        )

    return make
