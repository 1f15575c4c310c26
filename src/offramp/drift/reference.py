"""Reference: counts of exits and disagreements on reference samples, to compare a stream with."""

import warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from offramp.drift.bets import TUNING
from offramp.errors import DataError, OfframpWarning
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.spec import Spec
from offramp.table import counted

_FEWEST = 100


class DependenceWarning(OfframpWarning):
    """Samples or answers depend on each other, so false alarms may exceed the stated rate."""


class Tally(Spec):
    """Number of samples per category, in two disjoint parts.

    Ranks are uniform only if the bets do not depend on the samples used for ranking. So some
    samples are used only to place bets, and the others only for ranks.

    Attributes:
        placing: Number of samples per category for placing bets.
        ranked: Number of samples per category to rank new answers among.
    """

    placing: tuple[NonNegativeInt, ...]
    ranked: tuple[NonNegativeInt, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Estimated shares (E,) for placing bets, none of them 0 (Krichevsky-Trofimov)."""
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
    """The reference of a watch.

    Attributes:
        exits: Numbers of the exits that can answer.
        names: Names of these exits.
        mix: Number of samples that leave at each of these exits.
        disagreement: Number of samples whose answer agrees, or disagrees, with the final exit; None
            for a regression, whose answers are never exactly equal.
    """

    exits: tuple[NonNegativeInt, ...]
    names: tuple[str, ...]
    mix: Tally
    disagreement: Tally | None


def reference_of(
    outputs: ExitOutputs, policy: ExitPolicy, random: np.random.Generator
) -> Reference:
    """Count at which exits these samples leave.

    If samples share an id or a cluster, at most one of each unit is used, because ranks are uniform
    only for independent samples.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: There are too few independent samples, or no early exit is enabled.
    """
    rows = _independent_rows(outputs, random)
    leaves = policy.choose(outputs)[rows]
    exits = np.flatnonzero(np.append(policy.enabled, True))
    if len(leaves) < _FEWEST or len(exits) < 2:
        raise DataError(
            f"a watch needs at least {_FEWEST} independent reference samples and one enabled "
            f"early exit; got {counted(len(leaves), 'sample')} and "
            f"{counted(len(exits) - 1, 'enabled early exit')}. "
            "With about 5,000 samples, it detects a shift of 5 points within 2,000 answers."
        )
    if outputs.units is not None:
        warnings.warn(
            f"some of the {len(outputs.labels)} reference samples share ids or clusters, so the "
            f"watch uses only {len(rows)} of them, at most one of each. If the watched answers "
            "also depend on each other, like frames of a video, pass "
            "every=k with a k so large that answers k apart are independent.",
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
    """Choose at most one sample per unit, each sample with the same probability.

    A unit of m samples is used with probability m / M, where M is the size of the largest unit. The
    chosen samples therefore have the same mix as all samples, even if it depends on the unit's
    size.
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
