"""What a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offramp.answer import Answer
from offramp.evaluation import Absence, Comparison, Tradeoff
from offramp.evaluation.quality import Quality


@dataclass(frozen=True)
class Curve:
    """How one branch trained from one seed.

    Attributes:
        branch: Label of its settings.
        train_loss: One per epoch.
        validation_loss: One per epoch.
        best_epoch: Counted from 1, the one whose weights were kept.
    """

    cut: str
    branch: str
    seed: int
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and the answer it got.

    Attributes:
        image: (H, W) or (H, W, 3) uint8.
        truth: Name of its class.
        answer: Of a classification.
    """

    image: NDArray[np.uint8]
    truth: str
    answer: Answer

    @property
    def is_right(self) -> bool:
        """Whether the answer is its class."""
        return self.answer.text == self.truth

    @property
    def confidence(self) -> float:
        """The largest probability of the answer, 0 to 1."""
        return float(np.asarray(self.answer.probabilities).max())


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportInputs:
    """All that the page shows.

    Attributes:
        title: Of the page, plain text.
        comparison: Every branch over its seeds, with the static rivals.
        exits: The exits of the saved model.
        absence: The exits of the saved model where an input is absent; None leaves it out.
        quality: Of the exits of the saved model and of policies; None leaves it out.
        curves: One per trial.
        pictures: A few samples, answered one by one.
        facts: What else belongs to the numbers, such as versions, hardware and how times were
            measured; shown in this order.
        plan: The plan as YAML.
        warnings: What looks like a mistake; shown first.
    """

    title: str
    comparison: Comparison
    exits: Tradeoff
    absence: Absence | None = None
    quality: Quality | None = None
    curves: Sequence[Curve] = ()
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""
    warnings: Sequence[str] = ()
