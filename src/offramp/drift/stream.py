"""Stream: answers of one kind, thinned, looked at for dependence and bet on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.drift.bets import bets_on
from offramp.drift.dependence import LagTest
from offramp.drift.monitor import Crossing, Monitor
from offramp.drift.reference import Tally


class Stream:
    """One kind of answers: every k-th of them is bet on, as a monitor and a lag test see it.

    Attributes:
        limit: The e-value at which an alarm is due.
        every: The k; 1 takes all.
        seen: How many answers there were, those left out included.
    """

    def __init__(
        self,
        tally: Tally,
        shifts: Mapping[float, float],
        directions: Sequence[int],
        *,
        rate: float,
        every: int,
        random: np.random.Generator,
    ) -> None:
        self.limit, self.every, self.seen = 1 / rate, every, 0
        bets = bets_on(tally.shares, shifts, directions)
        ranked = np.array(tally.ranked, np.int64)
        self.monitor = Monitor(bets, ranked, -math.log(rate), random)
        self.lags = LagTest()

    def update(self, categories: NDArray[np.int64]) -> tuple[Crossing | None, int | None]:
        """Look at more answers: where the limit is first reached, and a dependence if first seen.

        Both are counted in answers of the stream, those left out included.
        """
        kept = categories[-self.seen % self.every :: self.every]
        self.seen += len(categories)
        crossing, reach = self.monitor.update(kept), self.lags.update(kept)
        if crossing is not None:
            crossing = replace(crossing, answers=(crossing.answers - 1) * self.every + 1)
        return crossing, None if reach is None else reach * self.every

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {"seen": self.seen, "monitor": self.monitor.state(), "lags": self.lags.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another one."""
        self.seen = int(state["seen"])
        self.monitor.restore(state["monitor"])
        self.lags.restore(state["lags"])
