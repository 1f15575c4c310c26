"""Weights files of a backbone: read without pickle's powers, and checked before they are used."""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from offramp.errors import BundleError

_SHOWN = 4
_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict in a checkpoint."""
_WRAPPERS = ("module", "_orig_mod")
"""Parts of a name that DataParallel and torch.compile add."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""Names in torchvision's published DenseNet files, `norm.1.weight` for `norm1.weight`."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a state dict that torch saved, onto the CPU.

    A checkpoint that holds the state dict under `state_dict` or `model` is opened.

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
            "Fetch it again, or save model.state_dict() to it again."
        ) from error
    state = _unwrapped(state)
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

    Batch norm's step counters may be missing. Names may carry the prefixes of DataParallel and
    torch.compile, or be those of torchvision's published DenseNets. Names that begin with one of
    `ignored` are for parts that this model was built without.

    Raises:
        BundleError: Names or shapes are those of another model; all three kinds are counted.
    """
    wanted: OrderedDict[str, Tensor] = OrderedDict(model.state_dict())
    given = {
        name: tensor
        for name, tensor in _renamed(state, wanted).items()
        if not _plain(name).startswith(tuple(ignored))
    }
    faults = _faults(given, wanted)
    if any(faults.values()):
        found = "; ".join(
            f"{len(names)} {kind}: {_few(names)}" for kind, names in faults.items() if names
        )
        raise BundleError(
            f"{source} is for another model than this {type(model).__name__} of {len(wanted)} "
            f"tensors. {found}. Name the backbone, and num_outputs, that it was saved from."
        )
    # Some modules (MNASNet) refuse a state without their version, which most files do not keep.
    versions = getattr(model.state_dict(), "_metadata", None)
    complete = OrderedDict(given)
    complete._metadata = versions  # type: ignore[attr-defined]  # as torch keeps it
    model.load_state_dict(complete, strict=False)


def _faults(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    return {
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


def _renamed(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The state under the model's own names, as far as they can be recognised."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = _plain(name)
        choices = (name, plain, _OLD_DENSENET.sub(r"\1\2", plain))
        fitting = (each for each in choices if each in wanted and each not in renamed)
        renamed[next(fitting, name)] = tensor
    return renamed


def _plain(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _unwrapped(state: Any) -> Any:
    """The state dict inside a checkpoint; what is not a checkpoint as it is."""
    if isinstance(state, Mapping):
        return next((state[key] for key in _INSIDE if _is_state(state.get(key))), state)
    return state


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
