"""Traffic: when clients send requests, and the transmission times of requests and answers."""

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
    """Requests at equal intervals, as from a single camera."""

    kind: Literal["fixed"] = "fixed"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times at which requests are sent, ascending, (N,); `random` is not used."""
        return np.arange(requests, dtype=np.float64) * (1000.0 / self.per_second)


class Poisson(Spec):
    """Requests of many independent clients: exponential gaps."""

    kind: Literal["poisson"] = "poisson"
    per_second: Rate

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times at which requests are sent, ascending, (N,)."""
        return np.cumsum(random.standard_exponential(requests)) * (1000.0 / self.per_second)


class Bursts(Spec):
    """Bursts that start at random times (exponential gaps) and may overlap.

    Attributes:
        per_second: Requests per second, averaged over bursts and pauses.
        burst_size: Number of requests in a burst.
        gap_ms: Gap between two requests of a burst.
    """

    kind: Literal["bursts"] = "bursts"
    per_second: Rate
    burst_size: Annotated[int, Field(ge=1)]
    gap_ms: Milliseconds = 0.0

    def times_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Times at which requests are sent, ascending, (N,)."""
        bursts = -(-requests // self.burst_size)
        between_ms = 1000.0 * self.burst_size / self.per_second
        starts = np.cumsum(random.standard_exponential(bursts)) * between_ms
        times = starts[:, np.newaxis] + self.gap_ms * np.arange(self.burst_size)
        return np.sort(times.ravel()[:requests])


Arrivals = Annotated[FixedRate | Poisson | Bursts, Field(discriminator="kind")]


class Constant(Spec):
    """A constant time."""

    kind: Literal["constant"] = "constant"
    ms: Milliseconds

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Draw transmission times, (N,)."""
        return np.full(requests, self.ms)


class Uniform(Spec):
    """A uniformly distributed time."""

    kind: Literal["uniform"] = "uniform"
    low_ms: Milliseconds
    high_ms: Milliseconds

    @model_validator(mode="after")
    def _in_order(self) -> "Uniform":
        if self.low_ms > self.high_ms:
            raise ValueError(
                f"low_ms={self.low_ms} is larger than high_ms={self.high_ms}; swap them."
            )
        return self

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Draw transmission times, (N,)."""
        return random.uniform(self.low_ms, self.high_ms, requests)


class Lognormal(Spec):
    """A lognormal time, with a long tail as radio links have.

    Attributes:
        median_ms: Median.
        sigma: Standard deviation of the logarithm; at 0.5, one time in 20 exceeds 2.3 times the
            median.
    """

    kind: Literal["lognormal"] = "lognormal"
    median_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sigma: Annotated[float, Field(ge=0, le=10)]

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Draw transmission times, (N,)."""
        times: Floats = self.median_ms * np.exp(self.sigma * random.standard_normal(requests))
        return times


class Trace(Spec):
    """Measured times, drawn with replacement."""

    kind: Literal["trace"] = "trace"
    values_ms: Annotated[tuple[Milliseconds, ...], Field(min_length=1)]

    def draw_ms(self, requests: int, random: np.random.Generator) -> Floats:
        """Draw transmission times, (N,)."""
        return random.choice(np.array(self.values_ms), requests)


Transmission = Annotated[Constant | Uniform | Lognormal | Trace, Field(discriminator="kind")]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order in which they reach the server.

    Attributes:
        samples: (N,) sample that each request is about.
        sent_ms: (N,) time at which the client sends it.
        arrivals_ms: (N,) time at which it reaches the server, ascending.
        downlink_ms: (N,) transmission time of its answer.
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
    """Draw requests about `samples` samples, with replacement.

    Raises:
        PlanError: A time overflows.
    """
    # Separate random streams, so that changing the uplink does not change the arrivals.
    of_samples, of_arrivals, of_uplinks, of_downlinks = np.random.default_rng(seed).spawn(4)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, naming the setting
        sent = arrivals.times_ms(requests, of_arrivals)
        reach = sent + uplink.draw_ms(requests, of_uplinks)
        back = downlink.draw_ms(requests, of_downlinks)
        _check_times(arrivals=(arrivals, sent), uplink=(uplink, reach))
        _check_times(downlink=(downlink, reach + back))
    order = np.argsort(reach, kind="stable")  # a request may overtake an earlier one
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
                f"{name}={setting!r} gives times that overflow. Choose "
                f"{'a higher rate' if name == 'arrivals' else 'shorter times or less spread'}."
            )
