"""Sweep: the trials of a call, in order, and which of them are known already."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from offramp.branches import BranchSpec, key
from offramp.multiexit.trial import Failed, Trial
from offramp.training.learner import TrialName
from offramp.training.settings import TrainSettings

Result = Trial | Failed
Ident = tuple[str, str, int, float | None]
"""Cut, key of the branch's settings, seed, and learning rate (None if there is only one)."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """All trials of a call.

    Attributes:
        cuts: Cuts with branches, in graph order.
        branches: Branches of each cut.
        known: Results of an earlier call, which are reused.
    """

    cuts: tuple[str, ...]
    branches: Mapping[str, Sequence[BranchSpec]]
    settings: TrainSettings
    known: Mapping[Ident, Result]

    @classmethod
    def of(
        cls,
        cuts: Sequence[str],
        branches: Mapping[str, Sequence[BranchSpec]],
        settings: TrainSettings,
        known: Iterable[Result],
    ) -> Self:
        """Make the trials at those of the backbone's `cuts` that have branches."""
        named = (_as_named(each, settings) for each in known)
        found = {_ident(each): each for each in named if each is not None}
        return cls(tuple(cut for cut in cuts if cut in branches), branches, settings, found)

    @property
    def needed(self) -> tuple[str, ...]:
        """Cuts with something left to train, whose taps are needed."""
        return tuple(cut for cut in self.cuts if self.untrained(cut))

    @property
    def num_untrained(self) -> int:
        """Number of trials that are left to train."""
        return sum(len(self.untrained(cut)) for cut in self.cuts)

    def untrained(self, cut: str) -> list[TrialName]:
        """Trials at a cut that are left to train."""
        return [name for name in self._names(cut) if _ident(name) not in self.known]

    def in_order(self, trained: Iterable[Result]) -> tuple[Result, ...]:
        """Results of all trials of the call, known or trained now, in order."""
        found = {**self.known, **{_ident(each): each for each in trained}}
        return tuple(found[_ident(name)] for cut in self.cuts for name in self._names(cut))

    def _names(self, cut: str) -> list[TrialName]:
        """All trials at a cut, in the order of branches, learning rates and seeds."""
        return [
            TrialName(cut, spec, seed, rate)
            for spec in self.branches[cut]
            for rate in self.settings.named_rates
            for seed in self.settings.seeds
        ]


def _as_named(trial: Result, settings: TrainSettings) -> Result | None:
    """A known result under the name of this sweep's trial; None if the sweep lacks its rate."""
    lr = trial.rate
    if lr is None and isinstance(trial, Trial) and trial.history:
        lr = trial.history[0].lr
    if lr is not None and lr not in settings.rates:
        return None
    rate = lr if len(settings.rates) > 1 else None
    return trial if trial.rate == rate else replace(trial, rate=rate)


def _ident(trial: Result | TrialName) -> Ident:
    return trial.cut, key(trial.spec), trial.seed, trial.rate
