"""Simulation of a server with a queue and a deadline: full network, smallest exit, policies."""

from offramp.simulation.result import Simulation, SimulationRow
from offramp.simulation.simulator import simulate
from offramp.simulation.traffic import (
    Arrivals,
    Bursts,
    Constant,
    FixedRate,
    Lognormal,
    Poisson,
    Trace,
    Transmission,
    Uniform,
)

__all__ = [
    "Arrivals",
    "Bursts",
    "Constant",
    "FixedRate",
    "Lognormal",
    "Poisson",
    "Simulation",
    "SimulationRow",
    "Trace",
    "Transmission",
    "Uniform",
    "simulate",
]
