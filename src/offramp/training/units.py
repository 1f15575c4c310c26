"""Units of training: branches at one cut on stored taps, which any machine can run.

A unit holds plain values only, so it can be pickled and sent elsewhere, and its result is a
function of them: run again, here or there, it gives the same bits. On a CPU a unit is one branch,
so no core waits for another; on an accelerator it is all branches of a cut, which share the taps
that are read and moved there.
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
"""Mean and deviation (C,) of each tap of a cut."""


@dataclass(frozen=True, eq=False)
class StoredTaps:
    """A cache on disk and the targets (N,) of the samples whose taps it holds."""

    folder: Path
    targets: NDArray[Any]


@dataclass(frozen=True)
class TrialFiles:
    """One branch to train, and where its state and its curves are kept."""

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
        """A branch with its initial weights, on the device."""
        with seeded(*name.stream, "init"):
            branch = name.spec.build(features, self.num_outputs)
        parts = [part for part in branch.modules() if isinstance(part, Standardise)]
        for part, tap in zip(parts, statistics if parts else (), strict=True):
            part.set_statistics(*tap)
        objective = Objective(self.task, self.settings.regression_loss)
        return Learner(name, branch.to(self.device), self.settings.at(name.rate), objective)


@dataclass(frozen=True, eq=False)
class Resources:
    """What a machine holds for its units: caches by their folder, and the progress report."""

    caches: Mapping[Path, FeatureCache]
    report: SharedProgress


@dataclass(frozen=True, eq=False)
class TrainTrials:
    """Train some branches at one cut, in lockstep."""

    recipe: Recipe
    cut: str
    features: TapShapes
    train: StoredTaps
    validation: StoredTaps
    trials: tuple[TrialFiles, ...]

    def run(self, resources: Resources, /) -> tuple[Trial | Failed, ...]:
        """Train each until it is done, from its saved state if there is one."""
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
    """Resume, train and read out branches, in the order given."""
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
