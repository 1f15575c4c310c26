"""Transmission: how long a request takes to the server, and an answer back."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from offramp.spec import Spec

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Constant(Spec):
    """Always the same time.

    Attributes:
        ms: Milliseconds.
    """

    kind: Literal["constant"] = "constant"
    ms: Milliseconds

    def draw_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Times of as many transmissions, (N,)."""
        return np.full(requests, self.ms)


class Uniform(Spec):
    """Any time between two, equally likely.

    Attributes:
        low_ms: The shortest.
        high_ms: The longest.
    """

    kind: Literal["uniform"] = "uniform"
    low_ms: Milliseconds
    high_ms: Milliseconds

    @model_validator(mode="after")
    def _in_order(self) -> "Uniform":
        if self.low_ms > self.high_ms:
            raise ValueError(f"low_ms={self.low_ms} lies above high_ms={self.high_ms}; swap them.")
        return self

    def draw_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
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

    def draw_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Times of as many transmissions, (N,)."""
        times: NDArray[np.float64] = self.median_ms * np.exp(
            self.sigma * random.standard_normal(requests)
        )
        return times


class Trace(Spec):
    """Measured times, drawn with replacement.

    Attributes:
        values_ms: What was measured.
    """

    kind: Literal["trace"] = "trace"
    values_ms: Annotated[tuple[Milliseconds, ...], Field(min_length=1)]

    def draw_ms(self, requests: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Times of as many transmissions, (N,)."""
        return random.choice(np.array(self.values_ms), requests)


Transmission = Annotated[Constant | Uniform | Lognormal | Trace, Field(discriminator="kind")]
