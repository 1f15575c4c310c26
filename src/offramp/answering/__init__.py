"""Answering new samples by a policy, whatever engine runs the network, in numpy alone."""

from offramp.answering.facts import ExitFacts, InputFacts, ModelFacts, StageCosts
from offramp.answering.opened import Opened
from offramp.answering.walk import Asked, Route, Walk

__all__ = [
    "Asked",
    "ExitFacts",
    "InputFacts",
    "ModelFacts",
    "Opened",
    "Route",
    "StageCosts",
    "Walk",
]
