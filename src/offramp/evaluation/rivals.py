"""Static rivals: what the same backbone gives for less compute without any exit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.errors import ShapeError
from offramp.evaluation.intervals import Interval
from offramp.storage.arrays import checked_outputs
from offramp.task import Task, checked_labels, measure_of


@dataclass(frozen=True, eq=False)
class Rival:
    """One way to spend less on every sample alike, such as smaller images.

    Attributes:
        name: Unique among rivals, such as `80 px`.
        value: Accuracy from 0 to 1, or the mean absolute error of a regression.
        flops: Of one sample, a multiply-add being 2.
        resolution: Side of its images in pixels.
        note: How it was made, such as `batch norm re-estimated on training images`.
        values: (N,) the measure of each sample, for paired intervals; None: no intervals.
    """

    name: str
    value: float
    flops: int
    resolution: int
    note: str = ""
    values: NDArray[np.float64] | None = None

    @classmethod
    def measured(
        cls,
        name: str,
        outputs: ArrayLike,
        labels: ArrayLike,
        *,
        flops: int,
        resolution: int,
        note: str = "",
        task: Task = "classification",
    ) -> Self:
        """A rival from its answers (N, K) on the samples that the exits answered, same order.

        Raises:
            ShapeError: Answers and labels do not fit together.
        """
        answers = checked_outputs("outputs", outputs, "(samples, K)")
        values = measure_of(task).values(answers, checked_labels(labels, answers, task))
        return cls(name, float(values.mean()), flops, resolution, note, values)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, without the single samples."""
        names = ("name", "value", "flops", "resolution", "note")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Duel:
    """The dearest exit of a series that costs no more than a rival, against that rival.

    The exit is picked by its cost alone, so the samples that judge it did not pick it.

    Attributes:
        cut: Of the exit.
        branch: Label of its branch.
        kind: Kind of its branch.
        flops: Of the exit on its own path.
        difference: Exit minus rival, in the measure's unit.
        interval: 95 % for the difference; None if the rival has no single samples.
    """

    cut: str
    branch: str
    kind: str
    flops: int
    difference: float
    interval: Interval | None


@dataclass(frozen=True, eq=False)
class RivalRow:
    """A rival and how the exits fare against it.

    Attributes:
        rival: Itself.
        interval: 95 % for its value; None if it has no single samples.
        duels: One per series of branches that has an exit cheap enough.
    """

    rival: Rival
    interval: Interval | None
    duels: tuple[Duel, ...]


def check_rivals(rivals: Sequence[Rival], samples: int) -> None:
    """Refuse rivals that share a name or were run on another number of samples.

    Raises:
        ShapeError: They do.
    """
    names = [rival.name for rival in rivals]
    if len(set(names)) != len(names):
        raise ShapeError(f"rivals must have different names, got {names}.")
    for rival in rivals:
        if rival.values is not None and rival.values.shape != (samples,):
            raise ShapeError(
                f"rival {rival.name!r} has {rival.values.shape} values for {samples} samples. "
                "Run it on the samples that the exits answered."
            )
