"""Order: which policies are tested, from careful to eager, learned on the order rows alone.

It knows neither limit nor confidence, so any of them may be asked for afterwards; and whatever it
is, the tests stay valid, since they see other rows. Only their power depends on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

_STEP = 0.01  # of the backbone's cost that one candidate saves more than the one before
_TIES = (1.0, 10.0, 100.0)  # how strongly exits are taken to be alike; the best is chosen
_PRICES = (3.0, 10.0, 30.0, 100.0, 300.0)  # of a loss, in shares of the backbone's cost
_CLEARLY = 0.03  # of the backbone's cost: what a weaker tie has to save to be taken
_PRIOR_ROWS = 50.0  # as many rows as the smooth risk at a rung counts for
_JUDGED = 128  # states that are compared when orders are

# Before any row is seen, the log odds of a loss are -4 + 0.7 surprise: 2 % where a score is in the
# middle of all, and rising a little more slowly than the log odds of its rank. The pull towards
# that weighs as much as a single row there (0.02 * 0.98), so it hardly matters; without it there
# would be no finite solution for rows without a loss.
_COMMON_CURVE = (-4.0, 0.7)
_COMMON_PULL = 0.02
_ROUNDING = 1e-9  # of the backbone's cost: a smaller gain is none

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OrderRows:
    """The rows that the order of the candidates is learned on: N rows, E exits.

    Attributes:
        first: First rung at which each row fires, (E - 1, N).
        surprise: (E - 1, N) log odds of the share of all scores, of any exit, above each score.
        num_rungs: Of each early exit, (E - 1,).
        losses: (E, N), of about 1 at most.
        strata: (N,) number of the class or group that each row is of; all 0 for one promise.
        units: (N,) number of each row's cluster.
        costs: Share of the backbone's cost paid for leaving at each exit, (E,), from which early
            exits are enabled, (E - 1,).
    """

    first: Ints
    surprise: Floats
    num_rungs: Ints
    losses: Floats
    strata: Ints
    units: Ints
    costs: Callable[[NDArray[np.bool_]], Floats]

    def only(self, rows: NDArray[np.bool_]) -> "OrderRows":
        """Some of the rows."""
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
        """Share of the cost saved, and mean loss (of the worst stratum), where rows leave there."""
        num = len(leaves)
        counts = np.bincount(leaves, minlength=len(self.losses))
        here = np.bincount(self.strata, self.losses[leaves, np.arange(num)])
        loss = float((here / np.maximum(1, np.bincount(self.strata))).max())
        return 1 - float(self.costs(state > 0) @ counts) / num, loss


def learned_states(rows: OrderRows) -> Ints:
    """States (J, E - 1) of rungs, from careful to eager, each above the one before.

    How alike the exits are taken to be is chosen among _TIES by what orders learned on one half of
    the rows save on the other half, at several prices of a loss: the strongest tie that is not
    clearly worse than the best, since with few rows the comparison itself is noisy.
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
    """0 or 1 for each row, alternating from cluster to cluster."""
    _, at, of = np.unique(units, return_index=True, return_inverse=True)
    halves: Ints = (np.argsort(np.argsort(at)) % 2)[of]
    return halves


def _by_risk(rows: OrderRows, tie: float) -> Ints:
    """States that raise one exit by one rung, the rung of the least risky rows first."""
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
    """Chance of a loss of the rows that fire first at each rung of each exit, never falling.

    A logistic curve in the surprise of the score, common to all exits, and a deviation from it for
    each exit that is the smaller the larger `tie`: so few rows suffice. Where a rung has many rows
    their own share of losses counts for more; isotonic regression keeps the rungs in order.
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
    """Of the rows that fire first at each rung: number, losses, mean surprise; each (R,)."""
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
    """Coefficients of a logistic curve through shares lost / num, by penalised likelihood.

    The first two are common to all exits and nearly free; the others are pulled to 0 by `tie`. The
    pull makes the loss strictly convex, so a trust region finds its one minimum from anywhere;
    plain Newton steps can jump back and forth where the curve is flat.
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
    """What the best state saves net of its losses on these rows, over all prices of a loss."""
    return sum(best for best, _ in _best_states(rows, states))


def _best_states(rows: OrderRows, states: Ints) -> list[tuple[float, Ints]]:
    """For each price of a loss the worth and the state that saves most net of it."""
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
    """Exit that answers each row, (N,), at each state, rising; one array, changed in place."""
    early, num = first.shape
    leaves = np.full(num, early, np.int64)
    before = np.zeros(early, np.int64)
    for state in states:
        for exit in np.flatnonzero(state != before):
            leaves[(first[exit] <= state[exit]) & (leaves > exit)] = exit
        before = state
        yield leaves


def _without_useless(rows: OrderRows, states: Ints) -> Ints:
    """The states without exits that cost more than they save, such as one with a large branch.

    The order by risk cannot see this, since every row that passes a branch pays for it. Exits are
    disabled one by one, the most useless first, since without it another can become useful, for as
    long as that is worth more over the best states of all prices.
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
    """States that save at least a step more than the one before: each test is a chance to fail."""
    kept, last = [], 0.0
    for state, leaves in _walked(rows, states):
        saved, _ = rows.judged(state, leaves)
        if saved >= last + _STEP:
            kept.append(state)
            last = saved
    return np.array(kept, np.int64).reshape(-1, states.shape[1])
