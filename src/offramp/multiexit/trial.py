"""Trial: one trained branch; ModelInfo: origin and meaning of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from offramp.branches import BranchSpec
from offramp.branches.kinds import predicts_error
from offramp.branches.predictor import parted
from offramp.preprocess import Preprocess


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch of one branch.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: The loss that training minimised, including an error predictor's.
        validation_loss: Loss of the answers alone.
        validation_score: Accuracy, or minus the mean absolute error for regression.
        lr: Learning rate used in this epoch.
        validation_rmse: Root mean squared error for regression; None for classification.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_score: float
    lr: float
    validation_rmse: float | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """One trained branch: a spec at a cut with a seed.

    Attributes:
        branch: The branch with the weights of the epoch that was kept, in evaluation mode.
        best_epoch: That epoch, counted from 1: the one with the lowest validation loss, or the last
            one if training keeps the last.
        validation_loss: Loss in that epoch.
        validation_score: Score in that epoch: accuracy, or minus the mean absolute error.
        rate: Initial learning rate, if the call tried several; else None.
    """

    cut: str
    spec: BranchSpec
    seed: int
    branch: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    validation_loss: float
    validation_score: float
    rate: float | None = None

    @property
    def label(self) -> str:
        """Name of the branch in tables: the label of its settings, with the rate if it has one."""
        return trial_label(self.spec, self.rate)

    @property
    def predicts_error(self) -> bool:
        """Whether the branch has an error predictor."""
        return predicts_error(self.spec)

    def answer(self, taps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """Outputs (B, K), and the scores (B,) of its error predictor, if it has one."""
        answers = self.branch(*taps)
        return parted(answers) if self.predicts_error else (answers, None)


@dataclass(frozen=True)
class Failed:
    """A branch whose training failed: a spec at a cut with a seed, and why.

    Attributes:
        reason: Such as "diverged in epoch 1", or the error of its own code.
        rate: Learning rate at the start, where the call tried several; else None.
    """

    cut: str
    spec: BranchSpec
    seed: int
    reason: str
    rate: float | None = None

    @property
    def label(self) -> str:
        """Name of the branch in tables, as for a `Trial`."""
        return trial_label(self.spec, self.rate)

    def __str__(self) -> str:
        return f"{self.label} at {self.cut!r}, seed {self.seed}: {self.reason}"


def trial_label(spec: BranchSpec, rate: float | None) -> str:
    """A short name such as `conv-k3-f16`, or `conv-k3-f16-lr0.001` if several rates are tried."""
    return spec.label() if rate is None else f"{spec.label()}-lr{rate!r}"


@dataclass(frozen=True)
class ModelInfo:
    """Origin of a model and meaning of its answers.

    Attributes:
        backbone: Name in the zoo and the other settings that build the backbone; None for a module
            that was given in Python.
        inputs: Preprocessing of each input; empty if it is not known.
        class_names: Names of the classes, in order, or the name of the value of a regression; empty
            if they are not known.
    """

    backbone: Mapping[str, Any] | None = None
    inputs: tuple[Preprocess, ...] = ()
    class_names: tuple[str, ...] = ()
