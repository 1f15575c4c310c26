from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.errors import DataError, PlanError, ShapeError
from offramp.training.finetuner import DensityGoal, Finetuner, parts_to_train
from offramp.training.objective import Objective
from offramp.training.settings import FinetuneSettings

IMAGES = torch.randn(13, 3, 6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(13) % 5
CLASSES = Objective("classification", "mae")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()),
        nn.Linear(56, 5),
    )


def finetuner(model: nn.Module, trains: Any = "all", **settings: Any) -> Finetuner:
    chosen = FinetuneSettings(**{"epochs": 4, "lr": 1e-2, **settings})
    parts = parts_to_train(model, trains)
    return Finetuner(model, parts, chosen, CLASSES)


def train(trained: Finetuner, epochs: int, inputs: Sequence[Tensor] = (IMAGES,)) -> Finetuner:
    for _ in range(epochs):
        trained.begin_epoch()
        trained.learn(inputs, LABELS, trained.epoch)
        trained.judge(inputs, LABELS)
        trained.end_epoch()
    return trained


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_all_layers_are_trained() -> None:
    before, model = network(), network()
    train(finetuner(model), 1)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before.get_parameter(name)), name


class Normed(nn.Module):
    """A batch norm between layers with buffers of their own, and a top."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 7, 3)
        self.other = nn.InstanceNorm2d(7, affine=True, track_running_stats=True)
        self.norm = nn.BatchNorm2d(7)
        self.top = nn.Linear(7 * 4 * 2, 5)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.top(self.norm(self.other(self.first(images))).flatten(1))
        return answer


def test_batch_norm_alone_leaves_every_other_bit() -> None:
    before, model = Normed(), Normed()
    train(finetuner(model, "batch_norm"), 2)
    moved = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert moved == {f"norm.{name}" for name in norm} | {"top.weight", "top.bias"}


def test_a_network_without_batch_norm_cannot_train_it_alone() -> None:
    with pytest.raises(PlanError, match="Sequential has no batch-norm layer"):
        parts_to_train(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(3, 4)), "batch_norm")


@pytest.mark.parametrize("trains", ["all", "batch_norm"])
def test_it_resumes_from_its_state_as_if_never_stopped(trains: str) -> None:
    whole = train(finetuner(network(), trains), 4)
    half = train(finetuner(network(), trains), 2)
    resumed = finetuner(network(), trains)
    resumed.restore(*half.state())
    train(resumed, 2)
    assert resumed.history == whole.history
    assert states_equal(resumed.network, whole.network)


def test_dropout_depends_on_the_seed_and_leaves_the_global_stream_alone() -> None:
    trained = [finetuner(network(), seed=seed) for seed in (0, 0, 1)]
    state = torch.random.get_rng_state()
    first, same, other = (train(each, 1).network for each in trained)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert states_equal(first, same)
    assert not states_equal(first, other)


def test_a_decaying_rate_falls_every_epoch_and_never_stops_early() -> None:
    trained = finetuner(network(), lr=1e-9, lr_decay=0.9, epochs=9, stop_patience=1)
    while not trained.done:
        train(trained, 1)
    rates = [epoch.lr for epoch in trained.history]
    assert rates == pytest.approx([1e-9 * 0.9**number for number in range(9)])


def test_adamw_decays_weights_apart_from_the_moments() -> None:
    first, second = (
        train(finetuner(network(), optimiser=kind, weight_decay=0.5), 1).network
        for kind in ("adam", "adamw")
    )
    assert not states_equal(first, second)


def test_the_score_is_the_share_of_right_answers() -> None:
    trained = train(finetuner(network()), 1)
    with torch.no_grad():
        right = (trained.network.eval()(IMAGES).argmax(dim=1) == LABELS).float().mean()
    batches = [((IMAGES[:7],), LABELS[:7]), ((IMAGES[7:],), LABELS[7:])]
    score, rmse = trained.test(batches)
    assert score == pytest.approx(float(right))
    assert rmse is None


class Counter(nn.Module):
    """Gives a density map, and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Conv2d(3, 1, 1)

    def density(self, images: Tensor) -> Tensor:
        maps: Tensor = self.output(images)
        return maps


def test_the_density_stage_trains_maps_by_their_sum_of_squares() -> None:
    model, maps = Counter(), torch.rand(13, 6, 4)
    with torch.no_grad():
        found = model.density(IMAGES)[:, 0]
    settings = FinetuneSettings(optimiser="adamw", lr=1e-2, lr_decay=0.99)
    parts = parts_to_train(model, "all")
    trained = Finetuner(model, parts, settings, DensityGoal(), "density")
    trained.begin_epoch()
    trained.judge((IMAGES,), maps)
    trained.learn((IMAGES,), maps, 0)
    trained.end_epoch()
    [epoch] = trained.history
    squares = ((found - maps) ** 2).sum(dim=(1, 2)).mean()
    errors = (found - maps).sum(dim=(1, 2))
    error = errors.abs().mean()
    assert epoch.train_loss == pytest.approx(float(squares))
    assert epoch.validation_loss == pytest.approx(float(error))
    assert epoch.validation_score == pytest.approx(-float(error))
    assert epoch.validation_rmse == pytest.approx(float((errors**2).mean().sqrt()))


def test_values_are_tested_by_the_mean_and_the_root_of_their_errors() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 1))
    goal = Objective("regression", "mae")
    trained = Finetuner(model, parts_to_train(model, "all"), FinetuneSettings(), goal)
    with torch.no_grad():
        errors = (model(IMAGES)[:, 0] - LABELS).numpy()
    batches = [((IMAGES[:9],), LABELS[:9]), ((IMAGES[9:],), LABELS[9:])]
    score, rmse = trained.test(batches)
    assert score == pytest.approx(-np.abs(errors).mean(), rel=1e-5)
    assert rmse == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.layer, self.error = nn.Linear(3, 5), error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (torch.OutOfMemoryError("full"), DataError, "Use a smaller train.batch_size"),
        (RuntimeError("x does not have a deterministic implementation"), PlanError, "to false"),
        (ValueError("Expected more than 1 value per channel"), ShapeError, "13 samples a batch"),
    ],
)
def test_what_fails_says_what_to_do(error: Exception, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        train(finetuner(Failing(error)), 1)


def test_a_training_that_diverges_names_a_lower_rate() -> None:
    with pytest.raises(DataError, match=r"diverged in epoch 1: .* below 1e\+30"):
        train(finetuner(network(), lr=1e30), 1)
