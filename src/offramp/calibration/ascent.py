"""Ascent: thresholds that trade accuracy against cost as well as one exit's change can make them.

For a price of cost, `worth - price * cost` climbs one exit at a time, each step taking the best of
all thresholds that exit could have, or disabling it. All thresholds met on the way are candidates,
so the points between two prices are found too. Nothing here knows a budget.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from offramp.calibration.rows import Floats, Rows, best_first

Candidate = tuple[float | None, ...]

NUM_PRICES = 16
MAX_ROUNDS = 4
KEPT_PER_SWEEP = 48
MAX_CANDIDATES = 600


def candidates(rows: Rows, starts: Sequence[Candidate]) -> list[Candidate]:
    """Thresholds worth looking at, by rising cost; those of `starts` are where climbs begin.

    At most MAX_CANDIDATES, none much worse than another one that is no dearer.
    """
    met = {start: _judged(rows, start) for start in starts}
    for price in _prices(rows):
        best = max(met, key=lambda thresholds: met[thresholds][1] - price * met[thresholds][0])
        for start in dict.fromkeys((best, rows.alone(rows.num_early))):
            for thresholds, cost, worth in _climb(rows, start, price):
                met[thresholds] = (cost, worth)
    every = list(met)
    front = best_first([met[each][0] for each in every], [met[each][1] for each in every])
    return [every[front[place]] for place in _spread(len(front), MAX_CANDIDATES)]


def _climb(rows: Rows, start: Candidate, price: float) -> Iterator[tuple[Candidate, float, float]]:
    """All candidates met, with mean cost and worth."""
    here, high = start, -np.inf
    for _ in range(MAX_ROUNDS):
        before = high
        for exit in range(rows.num_early):
            found = list(_neighbours(rows, here, exit, price))
            yield from found
            here, cost, worth = max(found, key=lambda each: each[2] - price * each[1])
            high = worth - price * cost
        if high <= before:
            return


def _neighbours(
    rows: Rows, here: Candidate, exit: int, price: float
) -> Iterator[tuple[Candidate, float, float]]:
    """The exit disabled, and the best of its thresholds, the one best at this price included."""
    off = (*here[:exit], None, *here[exit + 1 :])
    yield (off, *_judged(rows, off))
    thresholds, costs, worths = rows.sweep(here, exit)
    if not len(thresholds):
        return
    front = best_first(costs, worths)
    chosen = {front[place] for place in _spread(len(front), KEPT_PER_SWEEP)}
    chosen.add(int(np.argmax(worths - price * costs)))
    for place in sorted(chosen):
        changed = (*here[:exit], float(thresholds[place]), *here[exit + 1 :])
        yield changed, float(costs[place]), float(worths[place])


def _judged(rows: Rows, thresholds: Candidate) -> tuple[float, float]:
    cost, value = rows.judge(thresholds)
    return cost, rows.sign * value


def _prices(rows: Rows) -> Floats:
    """Prices of cost around what the last exit's answers are worth in place of another's."""
    gain = np.abs(rows.worth - rows.worth[-1]).mean(axis=1).max()
    cost = rows.outputs.own_path_cost(rows.unit).max()
    scale = (gain or 1.0) / (cost or 1.0)
    return np.asarray(scale * np.geomspace(0.003, 30.0, NUM_PRICES), np.float64)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, evenly spread, the first and last included."""
    places: list[int] = (
        np.unique(np.linspace(0, count - 1, min(count, most)).round()).astype(int).tolist()
    )
    return places
