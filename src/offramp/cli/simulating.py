"""The verb simulate: requests with a deadline, answered by each policy of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from offramp.cli.choosing import (
    Chosen,
    MaxDisagreement,
    MaxDrop,
    MaxRise,
    PolicyFile,
    named,
    with_policies,
)
from offramp.cli.notices import note
from offramp.cli.showing import AsJson, Outputs, Seed, show
from offramp.errors import PlanError

if TYPE_CHECKING:
    from offramp import simulation as sim

Setting = TypeVar("Setting")


def simulate(
    outputs: Outputs,
    rate: Annotated[float, typer.Option(metavar="R", help="Requests per second.")],
    deadline_ms: Annotated[
        float,
        typer.Option(metavar="MS", help="Time from sending a request until its answer arrives."),
    ],
    policy: PolicyFile = None,
    max_drop: MaxDrop = None,
    max_disagreement: MaxDisagreement = None,
    max_rise: MaxRise = None,
    arrivals: Annotated[
        Literal["fixed", "poisson", "bursts"], typer.Option(help="How requests arrive.")
    ] = "poisson",
    burst_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests in a burst, with --arrivals bursts.")
    ] = 10,
    uplink_ms: Annotated[
        float, typer.Option(metavar="MS", help="Median time that sending a request takes.")
    ] = 0.0,
    downlink_ms: Annotated[
        float, typer.Option(metavar="MS", help="Median time that sending an answer takes.")
    ] = 0.0,
    jitter: Annotated[
        float,
        typer.Option(metavar="SIGMA", help="Spread of these two times: a lognormal's sigma."),
    ] = 0.0,
    requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of requests to simulate.")
    ] = 100_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate requests with a deadline, from measured stage times."""
    from offramp import simulation as sim

    if jitter and not (uplink_ms or downlink_ms):
        raise typer.BadParameter(
            "it spreads the times of --uplink-ms and --downlink-ms, but both are 0. Set one of "
            "them, or leave out --jitter",
            param_hint="--jitter",
        )
    traffic: dict[str, Callable[..., sim.Arrivals]] = {
        "fixed": sim.FixedRate,
        "poisson": sim.Poisson,
        "bursts": partial(sim.Bursts, burst_size=burst_size),
    }

    def way(option: str, median_ms: float) -> "sim.Transmission":
        if jitter and median_ms:
            sources = {"median_ms": option, "sigma": "--jitter"}
            return _built(sim.Lognormal, sources, median_ms=median_ms, sigma=jitter)
        return _built(sim.Constant, {"ms": option}, ms=median_ms)

    rows, chosen = with_policies(
        outputs,
        "test",
        policy,
        max_drop=max_drop,
        max_disagreement=max_disagreement,
        max_rise=max_rise,
    )
    result = sim.simulate(
        rows,
        named(chosen.policies),
        arrivals=_built(traffic[arrivals], {"per_second": "--rate"}, per_second=rate),
        deadline_ms=deadline_ms,
        uplink=way("--uplink-ms", uplink_ms),
        downlink=way("--downlink-ms", downlink_ms),
        requests=requests,
        seed=seed,
    )
    show(Simulated(result, chosen.on(rows.source)), as_json)
    note(f"simulated in {result.seconds:.1f} s")


@dataclass(frozen=True)
class Simulated:
    """Result of `offramp simulate`."""

    result: "sim.Simulation"
    chosen: Chosen

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**self.result.as_json(), "policy": self.chosen.as_json()}

    def __str__(self) -> str:
        return f"{self.result}\n{self.chosen}"


def _built(make: Callable[..., Setting], options: dict[str, str], **values: float) -> Setting:
    """Build a setting; a value that it refuses is reported for the option that it came from."""
    from pydantic import ValidationError

    try:
        return make(**values)
    except PlanError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = error.__cause__.errors()[0]
        name = str(wrong["loc"][0])
        raise typer.BadParameter(
            f"{values[name]:g}: {wrong['msg']}", param_hint=options[name]
        ) from None
