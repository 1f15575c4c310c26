"""Early exits for pretrained CNNs: attach, train on the frozen backbone, compare, save.

The names below are imported on first use, so that the torch-free half stays torch-free.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offramp.backbones.staged import Cut, StagedBackbone, cut
    from offramp.branches import ConvBranch, SLViT
    from offramp.calibration.calibrate import calibrate
    from offramp.errors import OfframpError
    from offramp.evaluation.tradeoff import tradeoff
    from offramp.exporting.writing import export
    from offramp.features import FeatureCache
    from offramp.multiexit.model import MultiExit
    from offramp.outputs import ExitOutputs
    from offramp.policy import ExitPolicy
    from offramp.run.plan import load_plan
    from offramp.runtime.runtime import Runtime
    from offramp.training import fit_branches

__version__ = "0.1.0"

_HOMES = {
    "ConvBranch": "offramp.branches",
    "Cut": "offramp.backbones.staged",
    "ExitOutputs": "offramp.outputs",
    "ExitPolicy": "offramp.policy",
    "FeatureCache": "offramp.features",
    "MultiExit": "offramp.multiexit.model",
    "OfframpError": "offramp.errors",
    "Runtime": "offramp.runtime.runtime",
    "SLViT": "offramp.branches",
    "StagedBackbone": "offramp.backbones.staged",
    "calibrate": "offramp.calibration",
    "cut": "offramp.backbones.staged",
    "export": "offramp.exporting.writing",
    "fit_branches": "offramp.training",
    "load_plan": "offramp.run.plan",
    "tradeoff": "offramp.evaluation",
}

__all__ = [
    "ConvBranch",
    "Cut",
    "ExitOutputs",
    "ExitPolicy",
    "FeatureCache",
    "MultiExit",
    "OfframpError",
    "Runtime",
    "SLViT",
    "StagedBackbone",
    "calibrate",
    "cut",
    "export",
    "fit_branches",
    "load_plan",
    "tradeoff",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'offramp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
