"""Arrivals: when clients send their requests."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from offramp.spec import Spec

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FixedRate(Spec):
    """Requests at equal distances, as from one camera.

    Attributes:
        per_second: Requests per second.
    """

    kind: Literal["fixed"] = "fixed"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """When each request is sent, ascending, (N,); nothing is left to chance."""
        return np.arange(requests, dtype=np.float64) * (1000.0 / self.per_second)


class Poisson(Spec):
    """Requests of many clients that know nothing of each other: exponential gaps.

    Attributes:
        per_second: Requests per second, on average.
    """

    kind: Literal["poisson"] = "poisson"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """When each request is sent, ascending, (N,)."""
        return np.cumsum(random.standard_exponential(requests)) * (1000.0 / self.per_second)


class Bursts(Spec):
    """Bursts that begin at random (exponential gaps) and may overlap.

    Attributes:
        per_second: Requests per second, on average over bursts and pauses.
        burst_size: Requests in one burst.
        gap_ms: Between two requests of one burst.
    """

    kind: Literal["bursts"] = "bursts"
    per_second: Rate
    burst_size: Annotated[int, Field(ge=1)]
    gap_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def times_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """When each request is sent, ascending, (N,)."""
        bursts = -(-requests // self.burst_size)
        between_ms = 1000.0 * self.burst_size / self.per_second
        begins = np.cumsum(random.standard_exponential(bursts)) * between_ms
        times = begins[:, np.newaxis] + self.gap_ms * np.arange(self.burst_size)
        return np.sort(times.ravel()[:requests])


Arrivals = Annotated[FixedRate | Poisson | Bursts, Field(discriminator="kind")]
