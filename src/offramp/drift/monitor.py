"""Monitor: a conformal test martingale on a stream of categories (Vovk et al. 2003).

Without drift, reference and stream are exchangeable, whatever the true mix is. The rank of each new
answer among the reference and all answers so far, with ties broken at random, is then uniform and
independent of earlier ranks. The wealth of a bettor with fair bets on these ranks is a martingale,
so it reaches 1 / rate with probability at most the rate, however long the stream (Ville 1939).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.drift.bets import TUNING, Bets

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
_ARRAYS = ("counts", "log_money", "log_best", "since")  # the state of a monitor


@dataclass(frozen=True, eq=False)
class Crossing:
    """The first time that the wealth reaches the limit.

    Attributes:
        log_e: Logarithm of the wealth.
        since: (E,) answers of each category before the start of the component with the largest
            wealth.
        upto: (E,) answers of each category so far.
    """

    answers: int
    log_e: float
    since: Counts
    upto: Counts


class Monitor:
    """Test martingale: the wealth of bets against exchangeability.

    It is a mixture of martingales: a new component starts every 100 answers, so late changes face
    one that has not lost wealth yet. All stakes sum to 1, so the sum is a martingale too.
    Components of the same bet are added up, because they are multiplied by the same factors from
    then on.
    """

    def __init__(
        self, bets: Bets, reference: Counts, log_limit: float, random: np.random.Generator
    ) -> None:
        self.bets, self.reference, self.log_limit = bets, reference, log_limit
        self.random = random
        self.counts = np.zeros_like(reference)
        self.log_money = np.log(TUNING.at_once * bets.stakes)  # (J,)
        self.log_best = self.log_money.copy()  # (J,) wealth of the best single component
        self.since = np.zeros(
            (len(bets.stakes), len(reference)), np.int64
        )  # counts when it started
        self.crossed = False

    @property
    def answers(self) -> int:
        """Number of answers so far."""
        return int(self.counts.sum())

    @property
    def log_e(self) -> float:
        """Logarithm of the wealth: the evidence against the hypothesis of no drift."""
        return float(np.logaddexp.reduce(self.log_money))

    def update(self, categories: NDArray[np.int64]) -> Crossing | None:
        """Process answers (category indices, (N,)); return when the limit is first reached."""
        found: Crossing | None = None
        start = 0
        while start < len(categories):
            stop = start + TUNING.block - self.answers % TUNING.block
            found = self._block(categories[start:stop]) or found
            start = stop
        return found

    def _block(self, categories: NDArray[np.int64]) -> Crossing | None:
        """Process answers up to the next start of a component."""
        hits = categories[:, np.newaxis] == np.arange(len(self.counts))  # (N, E)
        upto = self.counts + np.cumsum(hits, axis=0)
        run = np.cumsum(self.bets.log_factors(self._ranks(hits, upto)), axis=0)  # (N, J)
        found = None if self.crossed else self._crossing(upto, run)
        self.counts = upto[-1]
        self.log_money = self.log_money + run[-1]
        self.log_best = self.log_best + run[-1]
        if self.answers % TUNING.block == 0:
            self._start()
        return found

    def _ranks(self, hits: NDArray[np.bool_], upto: Counts) -> Floats:
        """Rank of each answer among the reference and all answers so far, 0 to 1, (N,)."""
        bag = self.reference + upto  # (N, E), including the answer itself
        upper = np.cumsum(bag, axis=1)
        # Answers of a category tie, so the rank is uniform over the range of that category.
        ranks = upper[hits] - self.random.random(len(hits)) * bag[hits]
        values: Floats = ranks / upper[:, -1]
        return values

    def _crossing(self, upto: Counts, run: Floats) -> Crossing | None:
        money = self.log_money + run
        log_e = np.logaddexp.reduce(money, axis=1)
        over = np.flatnonzero(log_e >= self.log_limit)
        if not over.size:
            return None
        self.crossed = True
        first = over[0]
        since = self.since[money[first].argmax()]
        return Crossing(int(upto[first].sum()), float(log_e[first]), since, upto[first])

    def _start(self) -> None:
        # The stakes of all starts sum to `later`, because the differences telescope to 1.
        later = 1 - TUNING.at_once
        left = (
            1 + np.array([self.answers - TUNING.block, self.answers]) / TUNING.scale
        ) ** -TUNING.tail
        fresh = np.log(later * (left[0] - left[1]) * self.bets.stakes)
        self.log_money = np.logaddexp(self.log_money, fresh)
        better = fresh > self.log_best
        self.log_best = np.where(better, fresh, self.log_best)
        self.since = np.where(better[:, np.newaxis], self.counts, self.since)

    def state(self) -> dict[str, Any]:
        """State for `restore`, as JSON values."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {**arrays, "crossed": self.crossed, "random": self.random.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        for name in _ARRAYS:
            setattr(self, name, np.array(state[name], getattr(self, name).dtype))
        self.crossed = bool(state["crossed"])
        self.random.bit_generator.state = state["random"]
