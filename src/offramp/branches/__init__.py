"""Early-exit branches: their settings (specs), which build the modules."""

from offramp.branches.conv import ConvBranch
from offramp.branches.kinds import BranchSpec, ShippedBranch, branch_kinds, key, read_spec
from offramp.branches.slvit import SLViT

__all__ = [
    "BranchSpec",
    "ConvBranch",
    "SLViT",
    "ShippedBranch",
    "branch_kinds",
    "key",
    "read_spec",
]
