"""Objective: what a branch is trained for and how it is scored, per kind of task."""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from offramp.training.settings import RegressionLoss
from offramp.trial import Task


@dataclass(frozen=True)
class Objective:
    """Loss and score of outputs (B, K) against targets (B,)."""

    task: Task
    regression_loss: RegressionLoss

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch: cross entropy for classes (paper, section 4.3)."""
        if self.task == "classification":
            return F.cross_entropy(outputs, targets)
        values = rearrange(outputs, "b 1 -> b")
        measure = F.l1_loss if self.regression_loss == "mae" else F.mse_loss
        return measure(values, targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch, larger is better: right answers, or minus the absolute errors."""
        if self.task == "classification":
            return (outputs.argmax(dim=1) == targets).float().sum()
        return -(rearrange(outputs, "b 1 -> b") - targets).abs().sum()
