"""Units of training: branches at one cut on stored taps, which any machine can run.

A unit holds plain values only, so it can be sent to another machine, and its result depends on
them alone: run again anywhere, it gives the same bits. On a CPU a unit is one branch, so that no
core waits for another. On an accelerator it is all branches of a cut, so that taps are read and
moved to the device once.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.branches.tap import Standardise, TapShapes
from offramp.compute import seeded
from offramp.features import FeatureCache
from offramp.multiexit.trial import Failed, Trial
from offramp.task import Task
from offramp.training.learner import Learner, TrialName
from offramp.training.lockstep import InTurn, Setup, SharedProgress, train_together
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings
from offramp.training.state import State
from offramp.training.supply import StoredSupply

Statistics = Sequence[tuple[Tensor, Tensor]]
"""Mean and standard deviation (C,) of each tap of a cut."""


@dataclass(frozen=True, eq=False)
class StoredTaps:
    """A cache on disk, and the targets (N,) of its samples."""

    folder: Path
    targets: NDArray[Any]


@dataclass(frozen=True)
class TrialFiles:
    """A branch to train, with the places of its state and its curves."""

    name: TrialName
    state: Path
    curves: Path | None


@dataclass(frozen=True)
class Recipe:
    """How all branches of a call are built and trained."""

    settings: TrainSettings
    task: Task
    num_outputs: int
    device: str

    def learner(self, name: TrialName, features: TapShapes, statistics: Statistics) -> Learner:
        """Build a branch with its initial weights on the device."""
        with seeded(*name.stream, "init"):
            branch = name.spec.build(features, self.num_outputs)
        parts = [part for part in branch.modules() if isinstance(part, Standardise)]
        for part, tap in zip(parts, statistics if parts else (), strict=True):
            part.set_statistics(*tap)
        objective = Objective(self.task, self.settings.regression_loss)
        return Learner(name, branch.to(self.device), self.settings.at(name.rate), objective)


@dataclass(frozen=True, eq=False)
class Resources:
    """Resources that the units on a machine share: open caches by folder, and progress."""

    caches: Mapping[Path, FeatureCache]
    report: SharedProgress


@dataclass(frozen=True, eq=False)
class TrainTrials:
    """A unit: train some branches at one cut in lockstep."""

    recipe: Recipe
    cut: str
    features: TapShapes
    train: StoredTaps
    validation: StoredTaps
    trials: tuple[TrialFiles, ...]

    def run(self, resources: Resources, /) -> tuple[Trial | Failed, ...]:
        """Train all to the end, starting from saved states if there are any."""
        stored = resources.caches[self.train.folder]
        statistics = stored.statistics(self.cut)
        learners = {
            self.recipe.learner(files.name, self.features, statistics): files
            for files in self.trials
        }
        device, augment = torch.device(self.recipe.device), self.recipe.settings.augment
        judged = resources.caches[self.validation.folder]
        setup = Setup(
            StoredSupply(stored, (self.cut,), _tensor(self.train), device, augment),
            StoredSupply(judged, (self.cut,), _tensor(self.validation), device),
            self.recipe.settings,
            InTurn(),
            resources.report,
        )
        with resources.report.guard():
            return train_all(learners, setup)


def train_all(learners: Mapping[Learner, TrialFiles], setup: Setup) -> tuple[Trial | Failed, ...]:
    """Resume and train branches, and return their results in the order given."""
    with ExitStack() as curves:
        states = {
            learner: curves.enter_context(closing(State(files.state, files.curves)))
            for learner, files in learners.items()
        }
        for learner, state in states.items():
            state.resume(learner)
            if learner.done:
                setup.report.skip(learner)
        train_together(states, setup)
    return tuple(learner.result() for learner in learners)


def _tensor(taps: StoredTaps) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(taps.targets))
