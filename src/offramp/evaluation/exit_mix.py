"""Which exit answers which share of the samples under one fixed threshold."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offramp.errors import OfframpError
from offramp.outputs import ExitOutputs
from offramp.policy import SCORES, leaving
from offramp.table import scaled_flops, text_table

NO_PROMISE = (
    "The threshold is fixed, not calibrated: it carries no promise about accuracy or cost on "
    "other data."
)


@dataclass(frozen=True)
class ExitShare:
    """What one exit answers.

    Attributes:
        name: Of the exit.
        share: Of the samples that it answers, 0 to 1.
        accuracy: On those samples, 0 to 1; None if there are none.
    """

    name: str
    share: float
    accuracy: float | None


@dataclass(frozen=True)
class ExitMix:
    """What comes out when each sample leaves at the first exit that is sure enough.

    Attributes:
        threshold: An exit fires when its largest softmax probability is at least this.
        exits: In order; the last one answers whatever is left.
        accuracy: Over all samples, 0 to 1.
        final_accuracy: Of the final layer alone.
        mean_flops: Per sample, with the branches passed on the way.
        whole_flops: Of the backbone alone.
        samples: How many there are.
    """

    threshold: float
    exits: tuple[ExitShare, ...]
    accuracy: float
    final_accuracy: float
    mean_flops: float
    whole_flops: float
    samples: int

    @property
    def saved(self) -> float:
        """Share of the backbone's FLOPs saved; negative when the exits cost more than they save."""
        return 1 - self.mean_flops / self.whole_flops if self.whole_flops else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**asdict(self), "saved": self.saved, "note": NO_PROMISE}

    def summary(self) -> str:
        """One sentence with the numbers."""
        unit, ((mean, whole),) = scaled_flops([self.mean_flops, self.whole_flops])
        return (
            f"An exit fires at maximum softmax >= {self.threshold:g}: {100 * self.accuracy:.1f} % "
            f"right for {mean} {unit} on average, branches passed included, against "
            f"{100 * self.final_accuracy:.1f} % for {whole} {unit} of the backbone alone "
            f"({100 * self.saved:.0f} % saved, {self.samples} samples)."
        )

    def __str__(self) -> str:
        rows = [
            [
                item.name,
                f"{100 * item.share:.1f}",
                "" if item.accuracy is None else f"{100 * item.accuracy:.1f}",
            ]
            for item in self.exits
        ]
        table = text_table(["exit", "answers %", "of these right %"], rows)
        return f"{table}\n{self.summary()}\n{NO_PROMISE}"


def fixed_threshold(outputs: ExitOutputs, threshold: float = 0.9) -> ExitMix:
    """Let each sample leave at the first exit whose maximum softmax is at least `threshold`.

    Raises:
        OfframpError: The task is regression, which has no softmax.
    """
    if outputs.task == "regression":
        raise OfframpError(
            "a maximum softmax needs classes, and these outputs are a regression's. "
            "Compare its exits with tradeoff."
        )
    early = len(outputs.names) - 1
    leaves = leaving(SCORES["max_softmax"].of(outputs), [threshold] * early)
    right = outputs.correct
    answered = right[leaves, np.arange(leaves.size)]
    own, cost = outputs.own_path_cost(), outputs.with_passed_cost()
    return ExitMix(
        threshold=threshold,
        exits=tuple(
            ExitShare(
                name,
                float((leaves == exit).mean()),
                float(answered[leaves == exit].mean()) if (leaves == exit).any() else None,
            )
            for exit, name in enumerate(outputs.names)
        ),
        accuracy=float(answered.mean()),
        final_accuracy=float(right[-1].mean()),
        mean_flops=float(cost[leaves].mean()),
        whole_flops=float(own[-1]),
        samples=leaves.size,
    )
