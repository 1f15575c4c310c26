"""Runs: from a plan to a folder with model, outputs and report, and from there to answers.

`open_run` is imported on first use, so that listing runs needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offramp.run.opened import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'offramp.run' has no attribute {name!r}")
    return getattr(import_module("offramp.run.opened"), name)
