"""Ways through a network: policies that make given shares of samples leave at given exits."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from offramp.policy import ExitPolicy, Score
from offramp.policy.scores import Floats, Seen

_FIRES = 0.5
_ROUNDING = 1e-9


def asking_all(policy: ExitPolicy) -> ExitPolicy:
    """The policy with every early exit enabled."""
    return replace(policy, thresholds=(_FIRES,) * len(policy.thresholds))


def leaving_at(policy: ExitPolicy, exit: int) -> ExitPolicy:
    """Every sample leaves at this exit, after the branches that the policy runs on the way."""
    return _scheduled(policy, np.eye(len(policy.names))[exit], policy.score.reads_earlier)


def straight_to(policy: ExitPolicy, exit: int) -> ExitPolicy:
    """Every sample leaves at this exit, and no other branch runs."""
    early = range(len(policy.thresholds))
    alone = replace(policy, thresholds=tuple(_FIRES if each == exit else None for each in early))
    return _scheduled(alone, np.eye(len(policy.names))[exit], reads_earlier=False)


def leaving_in_shares(policy: ExitPolicy, shares: Sequence[float]) -> ExitPolicy:
    """The policy, but these shares (E,) of the samples leave at each exit, whatever they are."""
    return _scheduled(policy, np.asarray(shares, float), policy.score.reads_earlier)


def _scheduled(policy: ExitPolicy, shares: Floats, reads_earlier: bool) -> ExitPolicy:
    schedule = _Schedule(policy.score, shares)
    found = replace(
        policy,
        score=Score("scheduled", schedule, policy.score.tasks, reads_earlier),
        thresholds=tuple(None if each is None else _FIRES for each in policy.thresholds),
        promise=None,
        source=None,
    )
    schedule.exits = np.flatnonzero(found.runs).tolist()
    return found


class _Schedule:
    """Scores of 1 for as many samples as have to leave at an exit, and of 0 for the others.

    What is left over of a sample is carried on to the next call, so shares hold over many calls.
    The policy's own score is computed too, for the time that it takes.

    Attributes:
        exits: Numbers of the exits that are asked, in order.
    """

    def __init__(self, score: Score, shares: Floats) -> None:
        self._score = score
        self.exits: list[int] = []
        reached = np.append(1.0, 1.0 - np.cumsum(shares)[:-1])
        rates = np.divide(shares, reached, out=np.zeros(len(shares)), where=reached > _ROUNDING)
        self._rates = rates.clip(0.0, 1.0)
        self._carried = np.zeros(len(shares))

    def __call__(self, seen: Seen) -> Floats:
        self._score.at(seen)
        count = len(seen.outputs[-1])
        exit = self.exits[len(seen.outputs) - 1]
        self._carried[exit] += self._rates[exit] * count
        leave = min(count, int(self._carried[exit] + _ROUNDING))
        self._carried[exit] -= leave
        return np.repeat([1.0, 0.0], [leave, count - leave])
