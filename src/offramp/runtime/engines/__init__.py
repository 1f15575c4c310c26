"""Inference engines: they run the ONNX graphs of a bundle, one graph at a time."""

from offramp.runtime.engines.choice import open_engine
from offramp.runtime.engines.engine import Engine, Graph, Stop, Stopped

__all__ = ["Engine", "Graph", "Stop", "Stopped", "open_engine"]
