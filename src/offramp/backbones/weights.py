"""Weights files of a backbone: read without pickle's powers, and checked before they are used."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from offramp.errors import BundleError

_SHOWN = 4


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a state dict that torch saved, onto the CPU.

    Raises:
        BundleError: No such file, a damaged one, or one that holds something else.
    """
    if not path.is_file():
        raise BundleError(f"There is no weights file {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise BundleError(
            f"The weights file {path} ({path.stat().st_size:,} bytes) cannot be read: it is cut "
            f"short, damaged, or holds more than tensors ({type(error).__name__}: {first}). "
            "Fetch it again, or save model.state_dict() to it anew."
        ) from error
    if not _is_state(state):
        raise BundleError(
            f"The weights file {path} holds {_contents(state)}, not names and tensors. Save the "
            "state dict alone: torch.save(model.state_dict(), path)."
        )
    return dict(state)


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str, ignored: Collection[str] = ()
) -> None:
    """Copy `state` into `model`, all of it or nothing.

    Batch norm's step counters may be missing. Names that begin with one of `ignored` are for parts
    that this model was built without.

    Raises:
        BundleError: Names or shapes are those of another model; all three kinds are counted.
    """
    wanted = model.state_dict()
    given = {name: t for name, t in state.items() if not name.startswith(tuple(ignored))}
    faults = {
        "missing": [
            name for name in wanted if name not in given and not name.endswith("_batches_tracked")
        ],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} (file {_by(given[name])}, model {_by(wanted[name])})"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(
            f"{len(names)} {kind}: {_few(names)}" for kind, names in faults.items() if names
        )
        raise BundleError(
            f"{source} is for another model than this {type(model).__name__} of {len(wanted)} "
            f"tensors. {told}. Name the backbone, and num_outputs, that it was saved from."
        )
    model.load_state_dict(dict(given), strict=False)


def _is_state(state: Any) -> bool:
    return isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    )


def _contents(state: Any) -> str:
    if isinstance(state, Mapping):
        return f"a dictionary of {_few([str(name) for name in state])}"
    return f"a {type(state).__name__}"


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
