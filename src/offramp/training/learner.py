"""Learner: one branch in training, with everything that its next step depends on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from offramp.branches import BranchSpec, key
from offramp.branches.dropout import own_dropout, plain_dropout
from offramp.branches.kinds import predicts_error
from offramp.compute import random_stream
from offramp.multiexit.trial import Failed, Trial, trial_label
from offramp.training.course import LOST_DEVICE, Course, is_out_of_memory
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings

OUT_OF_MEMORY = "out of memory"
"""Start of the reason of a failure for lack of memory."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialName:
    """Name of a trial: a spec at a cut with a seed.

    Attributes:
        rate: The learning rate, if several are tried; else None.
    """

    cut: str
    spec: BranchSpec
    seed: int
    rate: float | None = None

    @property
    def stream(self) -> tuple[str, str, int]:
        """Start of the names of this branch's random streams; the same for every learning rate."""
        return self.cut, key(self.spec), self.seed

    def __str__(self) -> str:
        return f"{trial_label(self.spec, self.rate)} at {self.cut!r}, seed {self.seed}"


class Learner(Course):
    """A branch in training, independent of all others.

    Every step has its own random stream, so other branches do not affect it. An exception in the
    branch's own code ends the training of this branch only.

    Attributes:
        passing: Whether the failure is not the branch's own fault (memory ran out), so that a later
            call may try again.
    """

    def __init__(
        self, name: TrialName, branch: nn.Module, settings: TrainSettings, objective: Objective
    ) -> None:
        self.name = name
        device = next(branch.parameters()).device
        self._generator = torch.Generator(device)
        own_dropout(branch, self._generator)
        [lr] = settings.rates
        adam = torch.optim.Adam(
            branch.parameters(), lr, eps=settings.adam_epsilon, fused=device.type != "mps"
        )
        goal = replace(objective, error_predictor=predicts_error(name.spec))
        super().__init__(branch, adam, settings, goal)
        self.passing = False

    @property
    def cut(self) -> str:
        """Cut at which the branch reads."""
        return self.name.cut

    def learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        """One step of Adam; `step` counts from the start of training."""
        self._failing_alone(self._learn, taps, targets, step)

    def judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        """Validate one batch of samples."""
        self._failing_alone(self._judge, taps, targets)

    def end_epoch(self) -> None:
        """End the epoch: record it, set the next learning rate, decide whether to stop."""
        self._failing_alone(self._end_epoch)

    def result(self) -> Trial | Failed:
        """The trained branch with the weights to keep, on the CPU, or the reason why it failed."""
        name = self.name
        if self.failure is not None:
            return Failed(name.cut, name.spec, name.seed, self.failure, name.rate)
        self.keep()
        plain_dropout(self.network)
        kept = self.kept_epoch
        return Trial(
            cut=name.cut,
            spec=name.spec,
            seed=name.seed,
            branch=self.network.cpu().eval(),
            history=tuple(self.history),
            best_epoch=kept.epoch,
            validation_loss=kept.validation_loss,
            validation_score=kept.validation_score,
            rate=name.rate,
        )

    def _failing_alone(self, work: Callable[..., None], *args: Any) -> None:
        """Do work unless this branch has failed; an exception is recorded as its failure."""
        if self.failure is not None:
            return
        try:
            work(*args)
        except LOST_DEVICE:
            raise
        except Exception as error:  # the branch's own code may raise anything
            text = (str(error).splitlines() or [""])[0]
            self.passing = is_out_of_memory(error)
            what = OUT_OF_MEMORY if self.passing else type(error).__name__
            self.failure = f"{what} in epoch {self.epoch + 1}: {text}"
            _log.debug("%s failed", self.name, exc_info=error)

    def _learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        self.network.train()
        self._generator.manual_seed(random_stream(*self.name.stream, "step", step))
        self._step(self._answer(taps), targets)

    @torch.no_grad()
    def _judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        self.network.eval()
        self._validate(self._answer(taps), targets)
