"""Error predictor: an extra output of a branch that predicts whether its answer is right."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offramp.task import Task


class AnswerAndError(nn.Module):
    """The last dense layer of a head with the predictor beside it: (B, D) to (B, num_outputs + 1).

    The last column is the predictor's: a dense output of the same hidden units, which is zero at
    the start, plus, for classes, the scaled log odds of the largest probability. So it starts as
    the maximum softmax and learns what to add. Its loss does not change the layers of the answer.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.answer = nn.Linear(num_inputs, num_outputs)
        self.weight = nn.Parameter(torch.zeros(1, num_inputs))
        self.bias = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1)) if num_outputs > 1 else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Answer, and predict."""
        outputs = self.answer(hidden)
        prediction = F.linear(hidden.detach(), self.weight, self.bias)
        if self.scale is not None:
            prediction = prediction + self.scale * _log_odds(outputs.detach())
        return torch.cat([outputs, prediction], dim=1)


def _log_odds(logits: Tensor) -> Tensor:
    """Log odds of the largest probability, not rounded to 1: (B, 1) from (B, K)."""
    falling = logits.sort(dim=1, descending=True).values
    return falling[:, :1] - falling[:, 1:].logsumexp(dim=1, keepdim=True)


def parted(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Split the answers of a branch with a predictor into outputs (B, K) and prediction (B,)."""
    return answers[:, :-1], answers[:, -1]


def score_of(prediction: Tensor, task: Task) -> Tensor:
    """Score (B,), larger where more certain: the probability of being right, or minus the error."""
    return prediction.sigmoid() if task == "classification" else -prediction
