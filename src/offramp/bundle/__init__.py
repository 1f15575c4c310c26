"""Bundle: the folder that is deployed, with one ONNX graph per stage and branch."""

from offramp.bundle.contents import Bundle, card_with, open_bundle
from offramp.bundle.manifest import (
    BranchGraph,
    BundleManifest,
    Graph,
    Parity,
    PartTimes,
    StageGraph,
    Times,
)

__all__ = [
    "BranchGraph",
    "Bundle",
    "BundleManifest",
    "Graph",
    "Parity",
    "PartTimes",
    "StageGraph",
    "Times",
    "card_with",
    "open_bundle",
]
