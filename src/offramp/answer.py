"""Answer: what a model with exits says about one sample, where it left, and what that cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.record import Record


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer(Record):
    """The answer to one sample. Its fields are also its JSON.

    Attributes:
        outputs: Shape (K,): the logits of the exit that answered, or the value of a regression.
        probabilities: Shape (K,): their softmax, with the exit's temperature where the policy has
            one; None for a regression.
        label: Class number; None for a regression.
        class_name: Its name; None where the model knows no names.
        exit: Name of the exit that answered.
        score: How sure it is, by the policy's score; without a policy, the largest probability,
            and None for a regression.
        stage_ms: Milliseconds of each stage that ran, its branch included. For samples that ran
            together, this sample's equal share.
        total_ms: Milliseconds from reading the sample to the answer.
        flops: Spent (2mac), branches passed on the way included.
        flops_saved: Share of the full network's FLOPs that was not spent; negative where the
            branches cost more than they saved.
        promised: Whether the answer is the policy's own and the policy carries a promise.
        interrupted: Whether a deadline cut it short.
        absent: Names of the inputs that it was given without.
    """

    outputs: NDArray[np.float32]
    probabilities: NDArray[np.float64] | None
    label: int | None
    class_name: str | None
    exit: str
    score: float | None
    stage_ms: tuple[float, ...]
    total_ms: float
    flops: int
    flops_saved: float
    promised: bool
    interrupted: bool = False
    absent: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was answered, in a word: the class by name or number, or the value."""
        if self.label is None:
            return f"{float(self.outputs[0]):.6g}"
        return self.class_name or f"class {self.label}"

    def __str__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.3f}"
        lacking = f", without {' and '.join(self.absent)}" if self.absent else ""
        ends = (", interrupted by the deadline" if self.interrupted else "") + (
            ", covered by the policy's promise" if self.promised else ""
        )
        if self.absent and not self.promised:
            ends += ", not covered by a promise"
        return (
            f"{self.text} (exit {self.exit}{score}{lacking}; {self.total_ms:.1f} ms; "
            f"{self.flops / 1e6:.1f} MFLOPs, {100 * self.flops_saved:.0f} % saved{ends})"
        )
