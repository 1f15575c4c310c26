"""Weights files of a backbone: read without pickle's powers, and checked before they are used."""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from offramp.errors import BundleError, OfframpWarning

_SHOWN = 4
_INSIDE = (
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net"),
    *("weights", "params"),
)
"""Keys under which training scripts keep the state dict in a checkpoint."""
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
"""Keys of a moving average of the weights, which some scripts keep beside the weights."""
_WRAPPERS = ("module", "_orig_mod")
"""Parts of a name that DataParallel and torch.compile add."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""Names in torchvision's published DenseNet files, `norm.1.weight` for `norm1.weight`."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a state dict that torch saved, onto the CPU.

    A checkpoint that holds the state dict under a key such as `state_dict` or `model` is opened.

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
        raise BundleError(_why_unreadable(path, error)) from error
    state = _unwrapped(state, path)
    if not _is_state(state):
        raise BundleError(
            f"The weights file {path} holds {_contents(state)}, not names and tensors. Save only "
            "the state dict: torch.save(model.state_dict(), path)."
        )
    return dict(state)


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str, ignored: Collection[str] = ()
) -> None:
    """Copy `state` into `model`, all of it or nothing.

    Batch norm's step counters may be missing. Names may carry the prefixes of DataParallel and
    torch.compile and one of a training script, such as `model.`, or be those of torchvision's
    published DenseNets. Names that begin with one of `ignored` are for parts that this model was
    built without, or has new ones for: these stay as they are.

    Raises:
        BundleError: Names or shapes are those of another model; all three kinds are counted.
    """
    own = model.state_dict()
    wanted = {name: own[name] for name in own if not name.startswith(tuple(ignored))}
    given = {
        name: tensor
        for name, tensor in renamed(state, wanted).items()
        if not name.startswith(tuple(ignored))
    }
    faults = _faults(given, wanted)
    if any(faults.values()):
        found = "; ".join(
            f"{len(names)} {kind}: {_few(names)}" for kind, names in faults.items() if names
        )
        raise BundleError(
            f"{source} does not fit this {type(model).__name__}, which has {len(wanted)} tensors. "
            f"{found}. {_advice(faults, given)}"
        )
    # Some modules (MNASNet) refuse a state without their version, which most files do not keep.
    versions = getattr(own, "_metadata", None)
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


def _advice(faults: Mapping[str, list[str]], given: Mapping[str, Tensor]) -> str:
    """What to do; where only the last layer is of another size, which one to ask for."""
    others, shapes = [*faults["missing"], *faults["unexpected"]], faults["of another shape"]
    sizes = {given[fault.partition(" ")[0]].shape[0] for fault in shapes}
    if not others and len(shapes) <= 2 and len(sizes) == 1:
        return (
            f"If these belong to the last layer, set num_outputs={sizes.pop()}, as in the network "
            "that the file was saved from."
        )
    return "Use the backbone and the num_outputs that it was saved with."


def renamed(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The state under the model's own names, as far as they can be recognised."""
    plain = {name: _plain(name) for name in state}
    prefix = _prefix(list(plain.values()), wanted)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        choices = (name, *_spellings(plain[name].removeprefix(prefix)))
        fitting = (each for each in choices if each in wanted and each not in renamed)
        renamed[next(fitting, plain[name].removeprefix(prefix))] = tensor
    return renamed


def _prefix(names: Collection[str], wanted: Collection[str]) -> str:
    """What a training script put before the model's own names: `model.`; mostly nothing.

    It is the one with which most names fit, and the shortest of those.
    """
    found = {"": sum(_fits(name, wanted) for name in names)}
    for name in names:
        first, dot, rest = name.partition(".")
        if dot and _fits(rest, wanted):
            found[first + dot] = found.get(first + dot, 0) + 1
    return max(found, key=lambda prefix: (found[prefix], -len(prefix)))


def _fits(name: str, wanted: Collection[str]) -> bool:
    return any(each in wanted for each in _spellings(name))


def _spellings(name: str) -> Iterator[str]:
    """A name as it is, and as today's DenseNet of torchvision would have it."""
    yield name
    yield _OLD_DENSENET.sub(r"\1\2", name)


def _plain(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _unwrapped(state: Any, path: Path) -> Any:
    """The state dict inside a checkpoint; what is not a checkpoint as it is."""
    if not isinstance(state, Mapping) or _is_state(state):
        return state
    usual = [key for key in _INSIDE if _is_state(state.get(key))]
    averaged = [key for key in _AVERAGED if _is_state(state.get(key))]
    if usual and averaged:
        warnings.warn(
            f"the weights file {path} holds {usual[0]} and a moving average of it, "
            f"{averaged[0]}; {usual[0]} was used. To use the average, save it in its own file.",
            OfframpWarning,
            stacklevel=2,
        )
    return next((state[key] for key in (*usual, *averaged)), state)


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file that torch or safetensors refused, and what to do."""
    if isinstance(error, pickle.UnpicklingError) and (objects := _objects_in(path)):
        return (
            f"The weights file {path} holds Python objects besides tensors ({_few(objects)}), and "
            "reading those could run code that is in the file, so it was not opened. If you trust "
            "it, save only its tensors, once, where these classes can be imported: `saved = "
            'torch.load(path, weights_only=False)`, then `torch.save(saved["state_dict"], new)` '
            "for a checkpoint, or `torch.save(saved.state_dict(), new)` for a whole model."
        )
    if "TorchScript" in str(error):
        return (
            f"The weights file {path} is a TorchScript program, not a state dict. Save only its "
            "weights: torch.save(torch.jit.load(path).state_dict(), new)."
        )
    first = str(error).partition("\n")[0]
    return (
        f"The weights file {path} ({path.stat().st_size:,} bytes) cannot be read: it is "
        f"truncated, damaged or not a file of tensors ({type(error).__name__}: {first}). "
        "Download it again, or save model.state_dict() to it again."
    )


def _objects_in(path: Path) -> list[str]:
    """Names of the classes and functions that a file would import; none where it is damaged."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # whatever a damaged file makes of it, its first error is the one to show
        return []


def _is_state(state: Any) -> bool:
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
        )
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
