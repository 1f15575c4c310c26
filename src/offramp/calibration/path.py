"""Path: policies from careful to eager, in the order they are tested; learned from the order part.

It knows neither a limit nor a confidence, so any of them may be asked for afterwards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ground:
    """What the path is learned on: N rows, E exits.

    Attributes:
        first: First level at which each row fires, (E - 1, N).
        num_levels: Of each early exit, (E - 1,).
        losses: (E, N), of about 1 at most.
        strata: (N,) number of the class or group that each row is of; all 0 for one promise.
        costs: Cost of leaving at each exit, (E,), from which early exits are enabled, (E - 1,).
    """

    first: Ints
    num_levels: Ints
    losses: Floats
    strata: Ints
    costs: Callable[[NDArray[np.bool_]], Floats]


def learned_path(ground: Ground) -> Ints:
    """States (J, E - 1) of levels, each one level of one exit above the one before.

    From all disabled, every move takes the exit and the level that save most cost for each unit of
    loss they add (with 1 / N on top, so that no loss in a small sample is not taken for none).
    Several levels may be gone through in one move, for an exit that is enabled costs its branch
    before it saves; all states on the way are there. It ends where no move saves anything.
    """
    state = np.zeros(len(ground.first), np.int64)
    leaves = np.full(ground.losses.shape[1], len(state), np.int64)
    states = []
    while (move := _best_move(ground, state, leaves)) is not None:
        exit, level = move
        for step in range(int(state[exit]) + 1, level + 1):
            state[exit] = step
            states.append(state.copy())
        leaves[(ground.first[exit] <= level) & (leaves > exit)] = exit
    return np.array(states, np.int64).reshape(-1, len(state))


def walk(first: Ints, states: Ints) -> Iterator[Ints]:
    """Exit that answers each row, (N,), at each state of a path; one array, changed in place."""
    early, num = first.shape
    leaves = np.full(num, early, np.int64)
    before = np.zeros(early, np.int64)
    for state in states:
        for exit in np.flatnonzero(state != before):
            leaves[(first[exit] <= state[exit]) & (leaves > exit)] = exit
        before = state
        yield leaves


def _best_move(ground: Ground, state: Ints, leaves: Ints) -> tuple[int, int] | None:
    num_exits, num = ground.losses.shape
    counts = np.bincount(leaves, minlength=num_exits)
    here = ground.costs(state > 0) @ counts
    shares = _stratum_losses(ground, leaves)
    best, move = 0.0, None
    for exit in np.flatnonzero(state < ground.num_levels):
        after = np.arange(state[exit] + 1, ground.num_levels[exit] + 1)
        rows = np.flatnonzero(leaves > exit)
        moved = _moved(ground, int(exit), rows, leaves)[after]
        enabled = (state > 0) | (np.arange(len(state)) == exit)
        costs = ground.costs(enabled)
        saved = here - (costs @ counts - moved @ (costs - costs[exit]))
        added = _added(ground, int(exit), rows, leaves, shares)[after]
        worth = np.where(saved > 1e-9 * abs(here), saved / (np.maximum(added, 0) + 1 / num), 0.0)
        if worth.max(initial=0.0) > best:
            best, move = float(worth.max()), (int(exit), int(after[worth.argmax()]))
    return move


def _moved(ground: Ground, exit: int, rows: Ints, leaves: Ints) -> Ints:
    """Rows that fire up to each level, by the exit where they left before: (levels, E)."""
    num_exits, top = len(ground.losses), int(ground.num_levels[exit]) + 2
    flat = np.bincount(
        ground.first[exit, rows] * num_exits + leaves[rows], minlength=top * num_exits
    )
    return flat.reshape(top, num_exits).cumsum(axis=0)


def _stratum_losses(ground: Ground, leaves: Ints) -> Floats:
    """Mean loss of each stratum at the exits that answer."""
    here = ground.losses[leaves, np.arange(len(leaves))]
    sums = np.bincount(ground.strata, here, minlength=_num_strata(ground))
    return sums / np.maximum(1, np.bincount(ground.strata, minlength=_num_strata(ground)))


def _added(ground: Ground, exit: int, rows: Ints, leaves: Ints, shares: Floats) -> Floats:
    """Loss that letting an exit fire up to each level adds, (levels,).

    With strata, half of it is what it adds to the loss of the worst of them.
    """
    num, strata = len(leaves), _num_strata(ground)
    gains = ground.losses[exit, rows] - ground.losses[leaves[rows], rows]
    first, of = ground.first[exit, rows], ground.strata[rows]
    top = int(ground.num_levels[exit]) + 2
    flat = np.bincount(first * strata + of, gains, minlength=top * strata)
    sums = flat.reshape(top, strata).cumsum(axis=0)
    added: Floats = sums.sum(axis=1) / num
    if strata == 1:
        return added
    sizes = np.maximum(1, np.bincount(ground.strata, minlength=strata))
    worst: Floats = (shares + sums / sizes).max(axis=1) - shares.max()
    return (added + worst) / 2


def _num_strata(ground: Ground) -> int:
    return int(ground.strata.max(initial=0)) + 1
