"""Seconds for a sample, on a clock that moves with the work."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offramp.data import as_samples
from offramp.training.finetune import Loader
from offramp.training.finetuner import Finetuner, parts_to_train
from offramp.training.objective import Objective
from offramp.training.pace import Pace, pace_of
from offramp.training.settings import FinetuneSettings

IMAGES = torch.randn(11, 3, 6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(11) % 2


class Timed(nn.Module):
    """Takes the same time for every sample, and more in its first call."""

    def __init__(self, learn: float, judge: float, warming: float = 0.0) -> None:
        super().__init__()
        self.last = nn.Linear(72, 2)
        self.now, self.calls = 0.0, 0
        self.learn, self.judge, self.warming = learn, judge, warming

    def forward(self, images: Tensor) -> Tensor:
        each = self.learn if self.training else self.judge
        self.now += len(images) * each + self.warming * (self.calls == 0)
        self.calls += 1
        answer: Tensor = self.last(images.flatten(1))
        return answer


def pace(model: Timed, size: int, **settings: Any) -> Pace:
    chosen = FinetuneSettings(batch_size=size, **settings)
    goal = Objective("classification", "mae")
    trained = Finetuner(model, parts_to_train(model, "all"), chosen, goal)
    loader = Loader(as_samples((IMAGES, LABELS)), LABELS, torch.device("cpu"))
    return pace_of(trained, loader, loader, chosen, clock=lambda: model.now)


@pytest.mark.parametrize("size", [2, 3, 8, 11, 40])
def test_training_and_validation_have_a_pace_of_their_own(size: int) -> None:
    found = pace(Timed(learn=0.04, judge=0.01), size)
    assert (found.learn, found.judge) == pytest.approx((0.04, 0.01))


def test_a_slow_first_batch_does_not_count() -> None:
    assert pace(Timed(0.04, 0.01, warming=1.5), 3).learn == pytest.approx(0.04)


@pytest.mark.parametrize("size", [3, 11])
def test_a_first_batch_that_takes_all_of_the_time_counts(size: int) -> None:
    model = Timed(9.0, 0.01)
    assert pace(model, size).learn == pytest.approx(9.0)
    assert model.calls == 1 + -(-11 // size)


def test_no_more_is_probed_than_it_takes() -> None:
    model = Timed(0.5, 0.5)
    pace(model, 1)
    assert model.calls < 11
