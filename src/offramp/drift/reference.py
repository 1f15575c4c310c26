"""Reference: how the samples that a policy was calibrated on leave, as far as drift needs it."""

import warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from offramp.drift.bets import TUNING
from offramp.errors import DataError, OfframpWarning
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.spec import Spec

_FEWEST = 100


class DependenceWarning(OfframpWarning):
    """Samples or answers depend on each other, so more alarms than promised may be false."""


class Tally(Spec):
    """Samples per category, in two parts.

    Bets may not depend on the samples that ranks are taken among, or the ranks would not be
    uniform given the bets. So some samples only place the bets, and the others are ranked with.

    Attributes:
        placing: Samples of each category that place the bets.
        ranked: Samples of each category that new answers are ranked among.
    """

    placing: tuple[NonNegativeInt, ...]
    ranked: tuple[NonNegativeInt, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of each category where bets are placed, none of them 0 (Krichevsky-Trofimov), (E,)."""
        counts = np.array(self.placing) + 0.5
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    @property
    def whole(self) -> NDArray[np.float64]:
        """Share of each category among all samples, (E,)."""
        counts = np.add(self.placing, self.ranked)
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares


class Reference(Spec):
    """What a watch compares with.

    Attributes:
        exits: Numbers of the exits that can answer.
        names: Their names.
        mix: Samples that leave at each of them.
        disagreement: Samples whose answer agrees with the final exit's, and that does not; None
            for a regression, whose answers never quite agree.
    """

    exits: tuple[NonNegativeInt, ...]
    names: tuple[str, ...]
    mix: Tally
    disagreement: Tally | None


def reference_of(
    outputs: ExitOutputs, policy: ExitPolicy, random: np.random.Generator
) -> Reference:
    """Count how these samples leave.

    Where samples share an id or a cluster, one of each unit is taken at most: ranks are uniform
    only among independent samples.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: Too few independent samples, or no exit but the last can answer.
    """
    rows = _independent_rows(outputs, random)
    leaves = policy.choose(outputs)[rows]
    exits = np.flatnonzero(np.append(policy.enabled, True))
    if len(leaves) < _FEWEST or len(exits) < 2:
        raise DataError(
            f"a watch needs at least {_FEWEST} independent reference samples and one exit that can "
            f"fire before the last; got {len(leaves)} samples and {len(exits) - 1} such exits. "
            "About 5,000 samples let it find a shift of 5 points within 2,000 answers."
        )
    if outputs.units is not None:
        warnings.warn(
            f"the {len(outputs.labels)} reference samples share ids or clusters; the watch uses "
            f"{len(rows)} of them, at most one of each unit. If the answers it will see depend on "
            "each other too, as frames of one video do, give it every=k.",
            DependenceWarning,
            stacklevel=3,
        )
    placing = np.zeros(len(leaves), bool)
    placing[random.permutation(len(leaves))[: len(leaves) // TUNING.placing]] = True
    return Reference(
        exits=tuple(exits.tolist()),
        names=tuple(outputs.names[exit] for exit in exits.tolist()),
        mix=_tally(np.searchsorted(exits, leaves), placing, len(exits)),
        disagreement=_disagreement(outputs, rows, leaves, placing),
    )


def _independent_rows(outputs: ExitOutputs, random: np.random.Generator) -> NDArray[np.int64]:
    """At most one sample of each unit, every sample with the same probability.

    A unit of m samples gives one with probability m / M, where M is the size of the largest; so
    the samples taken have the mix of all samples, also where units of other sizes differ in it.
    """
    units = outputs.units
    if units is None:
        return np.arange(len(outputs.labels))
    order = random.permutation(len(units))
    _, first, sizes = np.unique(units[order], return_index=True, return_counts=True)
    taken = random.random(len(sizes)) < sizes / sizes.max()
    return np.sort(order[first[taken]])


def _disagreement(
    outputs: ExitOutputs,
    rows: NDArray[np.int64],
    leaves: NDArray[np.int64],
    placing: NDArray[np.bool_],
) -> Tally | None:
    if outputs.task == "regression":
        return None
    answers = outputs.predictions[:, rows]
    differ = answers[leaves, np.arange(len(leaves))] != answers[-1]
    return _tally(differ.astype(np.int64), placing, 2)


def _tally(categories: NDArray[np.int64], placing: NDArray[np.bool_], count: int) -> Tally:
    placed, ranked = (
        tuple(np.bincount(categories[part], minlength=count).tolist())
        for part in (placing, ~placing)
    )
    return Tally(placing=placed, ranked=ranked)
