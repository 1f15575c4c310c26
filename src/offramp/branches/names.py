"""How the settings of a branch are named: a label to read, a key to file under."""

import json
from hashlib import sha256
from typing import Annotated

from pydantic import Field

from offramp.branches.conv import ConvBranch
from offramp.branches.slvit import SLViT

BranchSpec = Annotated[SLViT | ConvBranch, Field(discriminator="kind")]
"""Any branch's settings; in YAML and JSON `kind` says which."""


def key(spec: BranchSpec) -> str:
    """16 hex digits that any change of a setting changes."""
    settings = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return sha256(settings.encode()).hexdigest()[:16]


def label(spec: BranchSpec) -> str:
    """A short name such as `slvit-p4-d32-h12`, `conv-k3-f16` or `pool`; differs where settings do.

    Settings that are at their default are left out after the first few.
    """
    start, rest = _slvit(spec) if isinstance(spec, SLViT) else _conv(spec)
    changed = {
        f"-l{spec.layers}": spec.layers > 1,
        **rest,
        f"-mlp{spec.hidden}": _differs(spec, "hidden"),
        f"-drop{spec.dropout:g}": _differs(spec, "dropout"),
        f"-drop-{spec.dropout_place}": _differs(spec, "dropout_place"),
        f"-{spec.activation}": _differs(spec, "activation"),
        "-std": spec.standardise,
        "-ep": spec.error_predictor,
    }
    return start + "".join(part for part, said in changed.items() if said)


def _slvit(spec: SLViT) -> tuple[str, dict[str, bool]]:
    return f"slvit-p{spec.patch}-d{spec.dim}-h{spec.heads}", {
        "-nores": not spec.last_residual,
        "-norm": spec.final_norm,
        f"-enc-{spec.mlp_activation}": _differs(spec, "mlp_activation"),
    }


def _conv(spec: ConvBranch) -> tuple[str, dict[str, bool]]:
    pool = "pool" if spec.pool == "global" else f"pool{spec.pool}"
    if spec.layers == 0:
        return pool, {}
    return f"conv-k{spec.kernel}-f{spec.filters}", {
        f"-dil{spec.dilation}": _differs(spec, "dilation"),
        f"-pad{'.'.join(map(str, spec.paddings))}": any(spec.paddings),
        f"-{pool}": _differs(spec, "pool"),
        "-bn": spec.norm,
    }


def _differs(spec: BranchSpec, field: str) -> bool:
    default = type(spec).model_fields[field].default
    return bool(getattr(spec, field) != default)
