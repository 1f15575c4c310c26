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
    assert float(objective.score(outputs, torch.tensor([2, 0]))) == 1


@pytest.mark.parametrize(("measure", "loss"), [("mae", 2.0), ("mse", 5.0)])
def test_values_are_trained_by_the_error_asked_for_and_scored_by_absolute_errors(
    measure: RegressionLoss, loss: float
) -> None:
    outputs, targets = torch.tensor([[1.0], [5.0]]), torch.tensor([2.0, 2.0])
    objective = Objective("regression", measure)
    assert float(objective.loss(outputs, targets)) == loss
    assert float(objective.score(outputs, targets)) == -4
