"""Trial: one trained branch, and what a model says of itself."""

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
    """What one epoch of one branch gave.

    Attributes:
        epoch: Counted from 1.
        train_loss: What training minimised, an error predictor's loss included.
        validation_loss: Of the answers alone.
        validation_score: Accuracy, or minus the mean absolute error for regression.
        lr: Learning rate used in this epoch.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_score: float
    lr: float


@dataclass(frozen=True, eq=False)
class Trial:
    """One trained branch: a spec at a cut with a seed.

    Attributes:
        branch: With the weights of its best epoch, in evaluation mode.
        best_epoch: Counted from 1, the one with the least validation loss.
        validation_loss: At the best epoch.
        validation_score: At the best epoch: accuracy, or minus the mean absolute error.
        rate: Learning rate at the start, where the call tried several; else None.
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
        """What tables call its branch: the label of its settings, with the rate if it has one."""
        return trial_label(self.spec, self.rate)

    @property
    def predicts_error(self) -> bool:
        """Whether the branch has an error predictor."""
        return predicts_error(self.spec)

    def answer(self, taps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """Outputs (B, K), and what its error predictor says, (B,), where it has one."""
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
        """As that of a `Trial`."""
        return trial_label(self.spec, self.rate)

    def __str__(self) -> str:
        return f"{self.label} at {self.cut!r}, seed {self.seed}: {self.reason}"


def trial_label(spec: BranchSpec, rate: float | None) -> str:
    """A short name such as `conv-k3-f16`; `conv-k3-f16-lr0.001` where several rates are tried."""
    return spec.label() if rate is None else f"{spec.label()}-lr{rate!r}"


@dataclass(frozen=True)
class ModelInfo:
    """Where a model comes from and what its answers mean.

    Attributes:
        backbone: The zoo's name and what else builds the backbone again; None for a module that
            came by API.
        inputs: What turns a picture or a sound into each input; empty where that is not known.
        class_names: One per class, in class order; empty where unknown.
    """

    backbone: Mapping[str, Any] | None = None
    inputs: tuple[Preprocess, ...] = ()
    class_names: tuple[str, ...] = ()
