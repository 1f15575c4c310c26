"""Objective: the loss and the scores of a branch, for each task."""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from offramp.branches.predictor import parted
from offramp.task import Task
from offramp.training.settings import RegressionLoss


@dataclass(frozen=True)
class Objective:
    """Loss and scores of a branch's answers (B, K) against targets (B,).

    Attributes:
        error_predictor: Whether answers have one more column, which predicts the branch's error.
    """

    task: Task
    regression_loss: RegressionLoss
    error_predictor: bool = False

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss to minimise, a mean over the batch: that of the answers plus the predictor's.

        The predictor's loss needs no weight: its gradient does not reach the layers of the answers,
        and the size of Adam's steps does not depend on a factor of the loss.
        """
        if not self.error_predictor:
            return self.answer_loss(answers, targets)
        outputs, prediction = parted(answers)
        return self._outputs_loss(outputs, targets) + self._error_loss(
            prediction, outputs.detach(), targets
        )

    def answer_loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Loss of the answers alone, which early stopping uses."""
        return self._outputs_loss(self._outputs(answers), targets)

    def _outputs(self, answers: Tensor) -> Tensor:
        return parted(answers)[0] if self.error_predictor else answers

    def _error_loss(self, prediction: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Log loss of "the answer is right", or squared error of the predicted absolute error."""
        if self.task == "classification":
            right = (outputs.argmax(dim=1) == targets).to(prediction.dtype)
            return F.binary_cross_entropy_with_logits(prediction, right)
        return F.mse_loss(prediction, (rearrange(outputs, "b 1 -> b") - targets).abs())

    def _outputs_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy for classes (paper, section 4.3)."""
        if self.task == "classification":
            return F.cross_entropy(outputs, targets)
        values = rearrange(outputs, "b 1 -> b")
        measure = F.l1_loss if self.regression_loss == "mae" else F.mse_loss
        return measure(values, targets)

    def scores(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Of each answer, larger is better: 1 or 0 for a class, minus the error of a value."""
        outputs = self._outputs(answers)
        if self.task == "classification":
            return (outputs.argmax(dim=1) == targets).float()
        return -(rearrange(outputs, "b 1 -> b") - targets).abs()
