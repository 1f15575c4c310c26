"""Anytime: the best exit for each deadline, and never a worse one for a longer deadline."""

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
from offramp.task import Measure, measure_of


@dataclass(frozen=True)
class AnytimeStep:
    """An exit and from which deadline on it is the best one.

    Attributes:
        exit: Its number, from 0.
        name: Its name.
        deadline: The least in which it answers, in the plan's unit.
        value: Accuracy from 0 to 1, or the mean absolute error, over all samples.
    """

    exit: int
    name: str
    deadline: float
    value: float


@dataclass(frozen=True)
class AnytimePlan:
    """Which exit answers for which deadline; it prints as a table.

    Attributes:
        steps: By rising deadline, each better than the one before on these samples.
        skipped: Names of exits that a cheaper one matches.
        unit: Of the deadlines: milliseconds, or FLOPs.
        interruptible: Whether every step's branch runs on the way to the next one.
        measure: What the values are.
        samples: How many there are.
    """

    steps: tuple[AnytimeStep, ...]
    skipped: tuple[str, ...]
    unit: CostUnit
    interruptible: bool
    measure: Measure
    samples: int

    def exit_for(self, deadline: float) -> int:
        """Number of the best exit that answers within the deadline.

        Raises:
            DeadlineError: Not even the first one does.
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
    """Best exit for every deadline, a deadline applying to each sample alike.

    A deadline known beforehand pays for the stages and the one branch that answers (the paper's
    table 13 counts so). With `interruptible` it may fall at any moment: every exit of the plan
    answers on the way, and its branch is paid for. An exit that costs more and is not better on
    these samples is skipped, and then its branch does not run.

    Raises:
        OfframpError: Milliseconds are asked for and none were measured.
    """
    measure = measure_of(outputs.task)
    # Summed exactly, so that the rows' order does not decide by rounding between two exits.
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
    """Exits better than all that come before them; of those that cost the same the best."""
    worth = values if measure.higher_is_better else -values
    kept: list[int] = []
    for exit in np.lexsort((-worth, order)):
        if not kept or worth[exit] > worth[kept[-1]]:
            kept.append(int(exit))
    return kept
