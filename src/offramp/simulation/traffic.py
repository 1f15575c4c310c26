"""Traffic: when clients send requests, how long they and their answers travel."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from offramp.errors import PlanError
from offramp.spec import Spec

Floats = NDArray[np.float64]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FixedRate(Spec):
    """Requests at equal distances, as from one camera."""

    kind: Literal["fixed"] = "fixed"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """When each request is sent, ascending, (N,); nothing is left to chance."""
        return np.arange(requests, dtype=np.float64) * (1000.0 / self.per_second)


class Poisson(Spec):
    """Requests of many clients that know nothing of each other: exponential gaps."""

    kind: Literal["poisson"] = "poisson"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """When each request is sent, ascending, (N,)."""
        return np.cumsum(random.standard_exponential(requests)) * (1000.0 / self.per_second)


class Bursts(Spec):
    """Bursts that start at random (exponential gaps) and may overlap.

    Attributes:
        per_second: Requests per second, on average over bursts and pauses.
        burst_size: Requests in one burst.
        gap_ms: Between two requests of one burst.
    """

    kind: Literal["bursts"] = "bursts"
    per_second: Rate
    burst_size: Annotated[int, Field(ge=1)]
    gap_ms: Milliseconds = 0.0

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """When each request is sent, ascending, (N,)."""
        bursts = -(-requests // self.burst_size)
        between_ms = 1000.0 * self.burst_size / self.per_second
        starts = np.cumsum(random.standard_exponential(bursts)) * between_ms
        times = starts[:, np.newaxis] + self.gap_ms * np.arange(self.burst_size)
        return np.sort(times.ravel()[:requests])


Arrivals = Annotated[FixedRate | Poisson | Bursts, Field(discriminator="kind")]


class Constant(Spec):
    """Always the same time."""

    kind: Literal["constant"] = "constant"
    ms: Milliseconds

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times of as many transmissions, (N,)."""
        return np.full(requests, self.ms)


class Uniform(Spec):
    """Any time between two, equally likely."""

    kind: Literal["uniform"] = "uniform"
    low_ms: Milliseconds
    high_ms: Milliseconds

    @model_validator(mode="after")
    def _in_order(self) -> "Uniform":
        if self.low_ms > self.high_ms:
            raise ValueError(f"low_ms={self.low_ms} lies above high_ms={self.high_ms}; swap them.")
        return self

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times of as many transmissions, (N,)."""
        return random.uniform(self.low_ms, self.high_ms, requests)


class Lognormal(Spec):
    """A long tail, as radio links have it: the logarithm is normal.

    Attributes:
        median_ms: Half of the times are longer.
        sigma: Standard deviation of the logarithm; at 0.5 one time in 20 is over 2.3 medians.
    """

    kind: Literal["lognormal"] = "lognormal"
    median_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sigma: Annotated[float, Field(ge=0, le=10)]

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times of as many transmissions, (N,)."""
        times: Floats = self.median_ms * np.exp(self.sigma * random.standard_normal(requests))
        return times


class Trace(Spec):
    """Measured times, drawn with replacement."""

    kind: Literal["trace"] = "trace"
    values_ms: Annotated[tuple[Milliseconds, ...], Field(min_length=1)]

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times of as many transmissions, (N,)."""
        return random.choice(np.array(self.values_ms), requests)


Transmission = Annotated[Constant | Uniform | Lognormal | Trace, Field(discriminator="kind")]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order in which they reach the server.

    Attributes:
        samples: (N,) which sample each asks about.
        sent_ms: (N,) when the client sent it.
        arrivals_ms: (N,) when it reaches the server, ascending.
        downlink_ms: (N,) how long its answer takes back.
    """

    samples: NDArray[np.int64]
    sent_ms: Floats
    arrivals_ms: Floats
    downlink_ms: Floats


def drawn_traffic(
    arrivals: Arrivals,
    uplink: Transmission,
    downlink: Transmission,
    requests: int,
    samples: int,
    seed: int,
) -> Traffic:
    """Requests that ask about `samples` samples, drawn with replacement.

    Raises:
        PlanError: Times that overflow.
    """
    # A stream for each, so that other uplinks do not change the arrivals.
    of_samples, of_arrivals, of_uplinks, of_downlinks = np.random.default_rng(seed).spawn(4)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, with its setting
        sent = arrivals.times_ms(requests, of_arrivals)
        reach = sent + uplink.draw_ms(requests, of_uplinks)
        back = downlink.draw_ms(requests, of_downlinks)
        _check_times(arrivals=(arrivals, sent), uplink=(uplink, reach))
        _check_times(downlink=(downlink, reach + back))
    order = np.argsort(reach, kind="stable")  # a faster one overtakes
    return Traffic(
        samples=of_samples.integers(samples, size=requests)[order],
        sent_ms=sent[order],
        arrivals_ms=reach[order],
        downlink_ms=back[order],
    )


def _check_times(**settings: tuple[Arrivals | Transmission, Floats]) -> None:
    for name, (setting, times) in settings.items():
        if not np.isfinite(times).all():
            raise PlanError(
                f"{name}={setting!r} gives times that are too large for a number. Choose "
                f"{'a higher rate' if name == 'arrivals' else 'shorter times or less spread'}."
            )
