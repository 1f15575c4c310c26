"""Early-exit branches: their settings (specs), which build the modules."""

from offramp.branches.conv import ConvBranch
from offramp.branches.names import BranchSpec, key, label
from offramp.branches.slvit import SLViT

__all__ = ["BranchSpec", "ConvBranch", "SLViT", "key", "label"]
