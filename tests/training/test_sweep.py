"""Several learning rates, and trials that are known from an earlier call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from offramp.branches import ConvBranch
from offramp.errors import PlanError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Failed, Trial

Fit = Callable[..., MultiExit]
BRANCH = {"4": [ConvBranch(filters=3, hidden=9)]}
OTHER = ConvBranch(filters=2, hidden=9)


def equal(one: Trial, other: Trial) -> bool:
    pairs = zip(one.branch.state_dict().values(), other.branch.state_dict().values(), strict=True)
    return one.history == other.history and all(torch.equal(a, b) for a, b in pairs)


def test_each_rate_trains_each_branch_as_a_call_with_that_rate_alone(fit: Fit) -> None:
    both = fit(BRANCH, lr=[1e-3, 3e-3]).trials
    assert [(trial.rate, trial.seed) for trial in both] == [
        (1e-3, 3),
        (1e-3, 5),
        (3e-3, 3),
        (3e-3, 5),
    ]
    assert both[2].label == f"{BRANCH['4'][0].label()}-lr0.003"
    alone = [*fit(BRANCH, lr=1e-3).trials, *fit(BRANCH, lr=3e-3).trials]
    assert [trial.label for trial in alone] == [BRANCH["4"][0].label()] * 4
    assert all(map(equal, both, alone))


def test_known_trials_are_reused_and_the_others_are_trained(fit: Fit) -> None:
    first = fit(BRANCH, seeds=[5], epochs=1).trials
    failed = Failed("4", OTHER, 3, "diverged in epoch 1")
    told: list[str] = []
    bigger = {"4": [OTHER, *BRANCH["4"]]}
    model = fit(
        bigger, epochs=1, known=[*first, failed], progress=lambda what, *_: told.append(what)
    )
    assert model.failed == (failed,)
    assert [trial.seed for trial in model.trials] == [5, 3, 5]
    assert model.trials[2] is first[0]
    assert any(what.startswith("training 2 branches") for what in told)


def test_known_trials_are_found_by_the_rate_that_they_were_trained_at(fit: Fit) -> None:
    one = fit(BRANCH, epochs=1, lr=1e-3).trials
    both = fit(BRANCH, epochs=1, lr=[3e-3, 1e-3], known=one).trials
    assert [trial.rate for trial in both] == [3e-3, 3e-3, 1e-3, 1e-3]
    assert [trial.branch for trial in both[2:]] == [trial.branch for trial in one]
    back = fit(BRANCH, epochs=1, lr=3e-3, known=[*one, *both]).trials
    assert [trial.branch for trial in back] == [trial.branch for trial in both[:2]]
    assert {trial.rate for trial in back} == {None}


def test_a_call_of_which_everything_is_known_computes_nothing(fit: Fit) -> None:
    first, told = fit(BRANCH, epochs=1), []
    again = fit(BRANCH, epochs=1, known=first.trials, progress=lambda *event: told.append(event))
    assert again.trials == first.trials
    assert told == []


@pytest.mark.parametrize("lr", [[], [1e-3, 1e-3], [1e-3, -1.0], "high"])
def test_learning_rates_that_cannot_be_are_refused(fit: Fit, lr: Any) -> None:
    with pytest.raises(PlanError, match="lr"):
        fit(BRANCH, lr=lr)
