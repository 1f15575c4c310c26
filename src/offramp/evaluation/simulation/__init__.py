"""Simulation of a server with a queue and a deadline: full network, smallest exit, policies."""

from offramp.evaluation.simulation.arrivals import Arrivals, Bursts, FixedRate, Poisson
from offramp.evaluation.simulation.result import Simulation, SimulationRow
from offramp.evaluation.simulation.simulator import simulate
from offramp.evaluation.simulation.transmission import (
    Constant,
    Lognormal,
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
