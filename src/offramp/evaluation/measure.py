"""How good an answer is: the one place that knows which way is better."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.arrays import Task


@dataclass(frozen=True)
class Measure:
    """What is averaged over samples: whether the answer is right, or how far it is off.

    Attributes:
        name: `accuracy`, a share from 0 to 1, or `MAE`, the mean absolute error.
        higher_is_better: True for accuracy.
        unit: What the texts print it in.
        scale: What the texts multiply it by.
        digits: Decimals the texts print.
    """

    name: str
    higher_is_better: bool
    unit: str
    scale: float
    digits: int

    def values(
        self, outputs: NDArray[np.float32], labels: NDArray[np.generic]
    ) -> NDArray[np.float64]:
        """The measure of each single answer, (..., N) from outputs (..., N, K) and labels (N,)."""
        if self.higher_is_better:
            right: NDArray[np.bool_] = outputs.argmax(axis=-1) == labels
            return right.astype(np.float64)
        return np.abs(outputs[..., 0].astype(np.float64) - labels.astype(np.float64))

    def better(self, one: float, other: float) -> bool:
        """Whether one value is strictly better than another."""
        return one > other if self.higher_is_better else one < other

    def text(self, value: float) -> str:
        """The value as tables print it, without its unit."""
        return f"{self.scale * value:.{self.digits}f}"

    def difference_text(self, value: float) -> str:
        """A difference of two values as tables print it, with its sign and one decimal more."""
        digits = self.digits + 1
        return f"{round(self.scale * value, digits) + 0.0:+.{digits}f}"  # + 0.0 unsigns -0.0


ACCURACY = Measure("accuracy", higher_is_better=True, unit="%", scale=100.0, digits=1)
MEAN_ABSOLUTE_ERROR = Measure("MAE", higher_is_better=False, unit="", scale=1.0, digits=3)


def measure_of(task: Task) -> Measure:
    """The measure of a task: accuracy, or mean absolute error for regression."""
    return ACCURACY if task == "classification" else MEAN_ABSOLUTE_ERROR
