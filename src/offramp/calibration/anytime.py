"""Anytime: the best exit for each deadline. A longer deadline never gives a worse exit."""

import bisect
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp import cost as costs
from offramp.errors import DeadlineError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.table import Table, scaled_costs
from offramp.task import Measure


@dataclass(frozen=True)
class AnytimeStep:
    """An exit and the shortest deadline for which it is the best choice.

    Attributes:
        exit: Number of the exit, from 0.
        name: Name of the exit.
        deadline: Shortest deadline that the exit meets, in the plan's unit.
        value: Accuracy (0 to 1) or mean absolute error over all samples.
    """

    exit: int
    name: str
    deadline: float
    value: float


@dataclass(frozen=True)
class AnytimePlan:
    """Which exit to use for each deadline; `str` prints a table.

    Attributes:
        steps: In order of increasing deadline; each is better than the previous one on these
            samples.
        skipped: Names of exits that are not better than a cheaper one.
        unit: Unit of the deadlines: milliseconds or FLOPs.
        interruptible: Whether the branch of every step runs on the way to the next step.
        measure: What the values measure.
        samples: Number of samples.
    """

    steps: tuple[AnytimeStep, ...]
    skipped: tuple[str, ...]
    unit: CostUnit
    interruptible: bool
    measure: Measure
    samples: int

    def exit_for(self, deadline: float) -> int:
        """Return the number of the best exit that answers within the deadline.

        Raises:
            DeadlineError: The deadline is shorter than the first exit needs.
        """
        place = bisect.bisect_right([step.deadline for step in self.steps], deadline)
        if place == 0 or np.isnan(deadline):
            first = self.steps[0]
            raise DeadlineError(
                f"a deadline of {deadline:g} {self.unit} is shorter than the {first.deadline:.10g} "
                f"{self.unit} of the first exit, {first.name!r}. Allow at least that, or cut the "
                "backbone earlier."
            )
        return self.steps[place - 1].exit

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "measure": self.measure.name,
            "unit": self.unit,
            "interruptible": self.interruptible,
            "samples": self.samples,
            "steps": [asdict(step) for step in self.steps],
            "skipped": list(self.skipped),
        }

    def __str__(self) -> str:
        unit, texts = scaled_costs(self.unit, [step.deadline for step in self.steps])
        head = ["exit", f"from {unit}", self.measure.head]
        rows = [
            [step.name, text, self.measure.text(step.value)]
            for step, text in zip(self.steps, texts, strict=True)
        ]
        skipped = (
            f" Skipped, since a cheaper exit is as good: {', '.join(self.skipped)}."
            if self.skipped
            else ""
        )
        return f"{Table(head, rows)}\n{self.samples} samples.{skipped}"


def anytime(
    outputs: ExitOutputs, cost: CostUnit = "ms", *, interruptible: bool = False
) -> AnytimePlan:
    """Find the best exit for every deadline; all samples get the same deadline.

    If the deadline is known in advance, only the stages and the branch that answers have to run
    (the paper's table 13 counts cost this way). With `interruptible`, the deadline may come at any
    moment, so every exit of the plan answers on the way and the cost of its branch is included. An
    exit that costs more than another without being better on these samples is skipped, and its
    branch does not run.

    Raises:
        OfframpError: `cost` is "ms", but the outputs contain no measured times.
    """
    measure = outputs.measure
    # An exact sum: with rounding, the order of the rows could decide between two equal exits.
    each = measure.values(outputs.outputs, outputs.labels)
    values = np.array([math.fsum(row) for row in each.tolist()]) / each.shape[1]
    stages, branches = outputs.costs(cost)
    own = costs.own_path(stages, branches)
    kept = _kept(measure, values, np.arange(len(own)) if interruptible else own)
    if interruptible:
        own = costs.with_passed(stages, branches, np.isin(np.arange(len(own)), kept))
    return AnytimePlan(
        steps=tuple(
            AnytimeStep(exit, outputs.names[exit], float(own[exit]), float(values[exit]))
            for exit in kept
        ),
        skipped=tuple(name for exit, name in enumerate(outputs.names) if exit not in kept),
        unit=cost,
        interruptible=interruptible,
        measure=measure,
        samples=outputs.outputs.shape[1],
    )


def _kept(measure: Measure, values: NDArray[np.float64], order: NDArray[Any]) -> list[int]:
    """Keep each exit that beats all cheaper ones; of several at the same cost, keep the best."""
    worth = values if measure.higher_is_better else -values
    kept: list[int] = []
    for exit in np.lexsort((-worth, order)):
        if not kept or worth[exit] > worth[kept[-1]]:
            kept.append(int(exit))
    return kept
