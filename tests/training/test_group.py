from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.branches.tap import Standardise
from offramp.compute import seeded
from offramp.errors import PlanError
from offramp.spec import FeatureShape
from offramp.training.group import Group
from offramp.training.learner import Learner, TrialName
from offramp.training.objective import Objective
from offramp.training.settings import Precision, TrainSettings

MAP = FeatureShape(7, 6, 4)
OBJECTIVE = Objective("classification", "mae")
SPECS: list[BranchSpec] = [
    SLViT(patch=2, dim=5, heads=3, hidden=13, dropout=0.5, standardise=True),
    ConvBranch(filters=3, hidden=13, dropout=0.5, standardise=True),
    ConvBranch(filters=3, hidden=13, dropout=0.5, layers=2, padding=1, norm=True),
    SLViT(patch=2, dim=5, heads=3, hidden=13, dropout=0.5, error_predictor=True),
]
NAMES = ["slvit", "conv", "norm", "predictor"]


def learner(spec: BranchSpec, seed: int, precision: Precision = "fp32") -> Learner:
    name = TrialName("4", spec, seed)
    with seeded(*name.stream, "init"):
        branch = spec.build(MAP, 11)
    if isinstance(branch.standardise, Standardise):
        branch.standardise.set_statistics(torch.arange(7) / 7, torch.arange(1, 8) / 5)
    settings = TrainSettings(lr=3e-3, precision=precision, stop_patience=1, epochs=4)
    return Learner(name, branch, settings, OBJECTIVE)


def learners(spec: BranchSpec, precision: Precision = "fp32") -> list[Learner]:
    return [learner(spec, seed, precision) for seed in (3, 5, 8)]


def batch(seed: int, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    draw = torch.Generator().manual_seed(seed)
    taps = torch.randn(9, 7, 6, 4, generator=draw).contiguous(memory_format=torch.channels_last)
    return (taps.to(dtype),), torch.randint(0, 11, (9,), generator=draw)


def train(
    trainees: Sequence[Group | Learner], steps: Sequence[int], dtype: torch.dtype = torch.float
) -> None:
    """One epoch."""
    for trainee in trainees:
        trainee.begin_epoch()
        for step in steps:
            trainee.learn(*batch(step, dtype), step)
        trainee.judge(*batch(100, dtype))
        trainee.end_epoch()


def losses(each: Sequence[Learner]) -> Tensor:
    """Of training and validation: (learners, epochs, 2)."""
    return torch.tensor(
        [[(epoch.train_loss, epoch.validation_loss) for epoch in one.history] for one in each]
    )


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_the_first_loss_is_that_of_apart_with_the_same_dropout(spec: BranchSpec) -> None:
    together, apart = Group(learners(spec)), learners(spec)
    other = learners(spec.model_copy(update={"dropout": 0.0}))
    train([together], [7])
    train(apart, [7])
    train(other, [7])
    ours, theirs, without = (losses(each)[..., 0] for each in (together.learners, apart, other))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (theirs - without).abs().min() > 1e-3  # other masks would show


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_every_weight_and_statistic_takes_the_way_it_takes_apart(spec: BranchSpec) -> None:
    together, apart = Group(learners(spec)), learners(spec)
    for one in (*together.learners, *apart):
        one.branch.double()  # else rounding alone moves a bias that batch norm takes out again
    for steps in ([0, 1], [2, 3]):
        train([together], steps, torch.double)
        train(apart, steps, torch.double)
    for ours, theirs in zip(together.learners, apart, strict=True):
        found, expected = ours.branch.state_dict(), theirs.branch.state_dict()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses(together.learners), losses(apart))


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_under_bf16_the_first_losses_agree_too(spec: BranchSpec) -> None:
    together, apart = Group(learners(spec, "bf16")), learners(spec, "bf16")
    train([together], [7])
    train(apart, [7])
    torch.testing.assert_close(losses(together.learners), losses(apart), rtol=0.02, atol=0)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    group, before = Group(learners(SPECS[0])), torch.get_rng_state()
    train([group], [0])
    assert torch.equal(torch.get_rng_state(), before)


def test_one_that_is_done_takes_no_part_and_the_others_do_not_notice() -> None:
    together, apart = Group(learners(SPECS[0])), learners(SPECS[0])
    done = together.learners[1]
    done.plateau = done.plateau.__class__(0.1, stopped=True)
    before = {name: value.clone() for name, value in done.branch.state_dict().items()}
    train([together], [0, 1])
    train(apart, [0, 1])
    torch.testing.assert_close(done.branch.state_dict(), before, rtol=0, atol=0)
    left = [0, 2]
    torch.testing.assert_close(
        losses([together.learners[place] for place in left]),
        losses([apart[place] for place in left]),
        rtol=0,
        atol=1e-4,
    )
    assert not done.history
    assert together.epoch == 1
    assert not together.done


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_a_group_goes_on_from_its_state_to_the_bit(spec: BranchSpec) -> None:
    whole, resumed = Group(learners(spec)), Group(learners(spec))
    train([whole], [0, 1])
    tensors, scalars = whole.state()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, scalars)
    assert resumed.epoch == 1
    for group in (whole, resumed):
        train([group], [2, 3])
    assert whole.state()[1] == resumed.state()[1]
    torch.testing.assert_close(whole.state()[0], resumed.state()[0], rtol=0, atol=0)


def test_two_specs_are_no_group() -> None:
    with pytest.raises(PlanError, match="Make a group of each spec at each cut"):
        Group([learner(SPECS[0], 3), learner(SPECS[1], 3)])
