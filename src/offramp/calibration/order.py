"""Order: the sequence of candidate policies for fixed-sequence testing, learned on the order rows.

The sequence starts with policies that rarely leave early and ends with those that often do. It
depends on neither limit nor confidence. Any sequence gives valid tests, because the tests use other
rows; a good one makes them more powerful.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

_STEP = 0.01  # least difference in saved share of cost between candidates
_TIES = (1.0, 10.0, 100.0)  # penalties on differences between the exits' risk curves to choose from
_PRICES = (3.0, 10.0, 30.0, 100.0, 300.0)  # prices of one loss, as multiples of the backbone's cost
_CLEARLY = 0.03  # least gain in saved share of cost that justifies a weaker penalty
_PRIOR_ROWS = 50.0  # weight of the fitted risk at a rung, in rows
_JUDGED = 128  # number of states on which sequences are compared

# Prior of the common risk curve: the log odds of a loss are -4 + 0.7 * surprise, which is 2 % at
# the median score. The prior weighs as much as a single row there (0.02 * 0.98), so it hardly
# matters, but without it there would be no finite solution for rows without a loss.
_COMMON_CURVE = (-4.0, 0.7)
_COMMON_PULL = 0.02
_ROUNDING = 1e-9  # share of the backbone's cost: smaller gains are attributed to rounding

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OrderRows:
    """The rows that the sequence of candidates is learned on: N rows, E exits.

    Attributes:
        first: (E - 1, N) first rung at which each row fires.
        surprise: (E - 1, N) log odds of the share of scores, pooled over the exits, above each
            score.
        num_rungs: (E - 1,) number of rungs of each early exit.
        losses: (E, N) losses of each exit's answers, scaled to at most about 1.
        strata: (N,) index of each row's class or group; all 0 if there is one promise for all rows.
        units: (N,) index of each row's cluster.
        costs: Function from the enabled early exits, (E - 1,), to the cost of leaving at each exit,
            (E,), as a share of the backbone's cost.
    """

    first: Ints
    surprise: Floats
    num_rungs: Ints
    losses: Floats
    strata: Ints
    units: Ints
    costs: Callable[[NDArray[np.bool_]], Floats]

    def only(self, rows: NDArray[np.bool_]) -> "OrderRows":
        """Select rows."""
        return OrderRows(
            self.first[:, rows],
            self.surprise[:, rows],
            self.num_rungs,
            self.losses[:, rows],
            self.strata[rows],
            self.units[rows],
            self.costs,
        )

    def judged(self, state: Ints, leaves: Ints) -> tuple[float, float]:
        """Share of cost saved, and mean loss in the worst stratum, if rows leave at `leaves`."""
        num = len(leaves)
        counts = np.bincount(leaves, minlength=len(self.losses))
        here = np.bincount(self.strata, self.losses[leaves, np.arange(num)])
        loss = float((here / np.maximum(1, np.bincount(self.strata))).max())
        return 1 - float(self.costs(state > 0) @ counts) / num, loss


def learned_states(rows: OrderRows) -> Ints:
    """Learn the states (J, E - 1) of rungs to test, in order; rungs never decrease.

    The penalty in _TIES is chosen by two-fold cross-validation: the sequence learned on one half of
    the rows is judged by what it saves on the other half, net of losses at several prices. The
    strongest penalty that is not clearly worse than the best one is taken, because this comparison
    is noisy when there are few rows.
    """
    half = _halves(rows.units)
    parts = [rows.only(half == number) for number in (0, 1)]
    if min(len(part.units) for part in parts) == 0:
        tie = _TIES[-1]
    else:
        worth = [
            sum(_worth(other, _by_risk(one, tie)) for one, other in (parts, parts[::-1]))
            for tie in _TIES
        ]
        clearly = max(worth) - _CLEARLY * 2 * len(_PRICES)
        tie = max(tie for tie, each in zip(_TIES, worth, strict=True) if each >= clearly)
    return _spaced(rows, _without_useless(rows, _by_risk(rows, tie)))


def _halves(units: Ints) -> Ints:
    """Assign 0 or 1 to each row, alternating between clusters."""
    _, at, of = np.unique(units, return_index=True, return_inverse=True)
    halves: Ints = (np.argsort(np.argsort(at)) % 2)[of]
    return halves


def _by_risk(rows: OrderRows, tie: float) -> Ints:
    """States that raise one exit by one rung at a time, in order of increasing risk."""
    risks = _rung_risks(rows, tie)
    moves = sorted(
        (float(risk), rung, exit)
        for exit, each in enumerate(risks)
        for rung, risk in enumerate(each, 1)
    )
    state, states = np.zeros(len(risks), np.int64), []
    for _, rung, exit in moves:
        state[exit] = rung
        states.append(state.copy())
    return np.array(states, np.int64).reshape(-1, len(risks))


def _rung_risks(rows: OrderRows, tie: float) -> list[Floats]:
    """Estimate the risk of a loss of the rows that first fire at each rung, increasing by rung.

    The estimate is a logistic curve in the surprise of the score, common to all exits, plus a
    deviation per exit that is penalised by `tie`, so that few rows are enough. At rungs with many
    rows, the observed share of losses dominates. Isotonic regression makes the risks increase with
    the rung.
    """
    tables = [_rung_table(rows, exit) for exit in range(len(rows.first))]
    early = len(tables)
    designs = []
    for exit, (_, _, surprise) in enumerate(tables):
        design = np.zeros((len(surprise), 2 + 2 * early))
        design[:, 0] = design[:, 2 + 2 * exit] = 1
        design[:, 1] = design[:, 3 + 2 * exit] = surprise
        designs.append(design)
    counts, losses = (np.concatenate([table[place] for table in tables]) for place in (0, 1))
    curve = _logistic(np.concatenate(designs), counts, losses, tie)
    risks = []
    for (num, lost, _), design in zip(tables, designs, strict=True):
        blended = (lost + _PRIOR_ROWS * expit(design @ curve)) / (num + _PRIOR_ROWS)
        fitted = isotonic_regression(blended, weights=num + _PRIOR_ROWS).x if len(num) else blended
        risks.append(np.asarray(fitted, np.float64))
    return risks


def _rung_table(rows: OrderRows, exit: int) -> tuple[Floats, Floats, Floats]:
    """Number, losses and mean surprise of the rows that first fire at each rung, (R,) each."""
    top, at = int(rows.num_rungs[exit]), rows.first[exit]
    fires = at <= top

    def totals(values: Floats | None) -> Floats:
        weights = None if values is None else values[fires]
        return np.bincount(at[fires], weights, minlength=top + 1)[1:].astype(np.float64)

    num, lost = totals(None), totals(np.maximum(rows.losses[exit], 0))
    mean = totals(rows.surprise[exit]) / np.maximum(num, 1)
    there = np.flatnonzero(num)
    return num, lost, np.interp(np.arange(top), there, mean[there]) if len(there) else mean


def _logistic(design: Floats, num: Floats, lost: Floats, tie: float) -> Floats:
    """Fit a logistic curve to the shares lost / num by penalised likelihood.

    The first two coefficients are common to all exits and nearly unpenalised; the others are shrunk
    to 0 by `tie`. The penalty makes the objective strictly convex, so a trust-region method finds
    the only minimum from any start; plain Newton steps can oscillate where the curve is flat.
    """
    pull = np.full(design.shape[1], tie)
    pull[:2] = _COMMON_PULL
    centre = np.zeros(len(pull))
    centre[:2] = _COMMON_CURVE

    def loss(found: Floats) -> tuple[float, Floats]:
        odds = design @ found
        away = found - centre
        value = (num * np.logaddexp(0, odds) - lost * odds).sum() + 0.5 * (pull * away**2).sum()
        return float(value), design.T @ (num * expit(odds) - lost) + pull * away

    def curvature(found: Floats) -> Floats:
        chance = expit(design @ found)
        hessian: Floats = (design.T * (num * chance * (1 - chance))) @ design + np.diag(pull)
        return hessian

    fitted = minimize(loss, centre, jac=True, hess=curvature, method="trust-exact")
    return np.asarray(fitted.x, np.float64)


def _worth(rows: OrderRows, states: Ints) -> float:
    """Net savings of the best state on these rows, summed over all prices of a loss."""
    return sum(best for best, _ in _best_states(rows, states))


def _best_states(rows: OrderRows, states: Ints) -> list[tuple[float, Ints]]:
    """For each price of a loss, the largest net savings and the state that reaches them."""
    none = np.zeros((1, states.shape[1]), np.int64)
    states = np.concatenate([none, states[:: max(1, len(states) // _JUDGED)]])
    judged = [rows.judged(state, leaves) for state, leaves in _walked(rows, states)]
    found = []
    for price in _PRICES:
        worth = [saved - price * max(loss, 0.0) for saved, loss in judged]
        place = int(np.argmax(worth))
        found.append((worth[place], states[place]))
    return found


def _walked(rows: OrderRows, states: Ints) -> Iterator[tuple[Ints, Ints]]:
    return zip(states, walk(rows.first, states), strict=True)


def walk(first: Ints, states: Ints) -> Iterator[Ints]:
    """Yield the exit that answers each row, (N,), for each of the increasing states.

    The same array is yielded each time and changed in place.
    """
    early, num = first.shape
    leaves = np.full(num, early, np.int64)
    before = np.zeros(early, np.int64)
    for state in states:
        for exit in np.flatnonzero(state != before):
            leaves[(first[exit] <= state[exit]) & (leaves > exit)] = exit
        before = state
        yield leaves


def _without_useless(rows: OrderRows, states: Ints) -> Ints:
    """Disable exits that cost more than they save, for example because their branch is large.

    The order by risk ignores costs: a branch costs every row that passes it. Exits are disabled one
    by one, starting with the one whose removal gains most, as long as the net savings of the best
    states increase. One at a time, because removing one exit can make another one useful.
    """
    kept = np.ones(states.shape[1], bool)
    while len(states) and kept.any():
        best = _best_states(rows, states * kept)
        gains = {}
        for exit in np.flatnonzero(kept):
            without = kept & (np.arange(len(kept)) != exit)
            gains[exit] = sum(
                price_worth - worth
                for (worth, state), price in zip(best, _PRICES, strict=True)
                for price_worth in [_worth_at(rows, state * without, price)]
            )
        exit = max(gains, key=gains.__getitem__)
        if gains[exit] <= _ROUNDING:
            break
        kept[exit] = False
    found = states * kept
    fresh = np.append(True, (found[1:] != found[:-1]).any(axis=1))[: len(found)]
    return found[fresh & found.any(axis=1)]


def _worth_at(rows: OrderRows, state: Ints, price: float) -> float:
    [leaves] = walk(rows.first, state[np.newaxis])
    saved, loss = rows.judged(state, leaves)
    return saved - price * max(loss, 0.0)


def _spaced(rows: OrderRows, states: Ints) -> Ints:
    """Keep states that save _STEP more than the previous one; every test is a chance to fail."""
    kept, last = [], 0.0
    for state, leaves in _walked(rows, states):
        saved, _ = rows.judged(state, leaves)
        if saved >= last + _STEP:
            kept.append(state)
            last = saved
    return np.array(kept, np.int64).reshape(-1, states.shape[1])
