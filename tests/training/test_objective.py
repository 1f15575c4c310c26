import math

import pytest
import torch

from offramp.training.objective import Objective
from offramp.training.settings import RegressionLoss


def test_classes_are_trained_by_cross_entropy_and_scored_by_right_answers() -> None:
    outputs = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    objective = Objective("classification", "mae")
    loss = objective.loss(outputs, torch.tensor([2, 0]))
    expected = (math.log(3) + math.log(1 + 2 * math.exp(-5))) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert objective.scores(outputs, torch.tensor([2, 0])).tolist() == [0, 1]


@pytest.mark.parametrize(("measure", "loss"), [("mae", 2.0), ("mse", 5.0)])
def test_values_are_trained_by_the_given_error_and_scored_by_absolute_errors(
    measure: RegressionLoss, loss: float
) -> None:
    outputs, targets = torch.tensor([[1.0], [5.0]]), torch.tensor([2.0, 2.0])
    objective = Objective("regression", measure)
    assert float(objective.loss(outputs, targets)) == loss
    assert objective.scores(outputs, targets).tolist() == [-1, -3]


def test_a_predictor_learns_whether_the_answer_is_right_and_stopping_ignores_it() -> None:
    objective = Objective("classification", "mae", error_predictor=True)
    answers = torch.tensor([[5.0, 0.0, 2.0], [5.0, 0.0, -1.0]])
    targets = torch.tensor([0, 1])  # right, wrong
    plain = Objective("classification", "mae").loss(answers[:, :2], targets)
    log_losses = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert float(objective.answer_loss(answers, targets)) == pytest.approx(float(plain))
    assert float(objective.loss(answers, targets) - plain) == pytest.approx(log_losses, rel=1e-6)
    assert objective.scores(answers, targets).tolist() == [1, 0]


def test_a_predictor_of_values_learns_the_absolute_error() -> None:
    objective = Objective("regression", "mae", error_predictor=True)
    answers, targets = torch.tensor([[1.0, 2.0], [2.0, 0.5]]), torch.tensor([4.0, 2.0])
    assert float(objective.answer_loss(answers, targets)) == 1.5
    assert float(objective.loss(answers, targets)) == 1.5 + ((2 - 3) ** 2 + 0.5**2) / 2


def test_a_predictors_loss_gives_the_answers_no_gradient() -> None:
    answers = torch.randn(4, 6, requires_grad=True)
    objective = Objective("classification", "mae", error_predictor=True)
    targets = torch.tensor([0, 1, 2, 3])
    extra = objective.loss(answers, targets) - objective.answer_loss(answers, targets)
    [grad] = torch.autograd.grad(extra, answers)
    assert grad[:, :-1].abs().max() < 1e-7
    assert grad[:, -1].abs().min() > 0
